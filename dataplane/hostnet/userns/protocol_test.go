package userns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"corax/dataplane"
	"corax/dataplane/hostnet"
)

func diff(a, b any) string {
	return cmp.Diff(a, b, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}))
}

func requests() []request {
	prefix := netip.MustParsePrefix
	return []request{
		{Op: opOpen, Open: &openRequest{Name: "corax0", MTU: 1400, TakeOver: true, HostSource: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}}},
		{Op: opApply, State: &hostnet.State{
			Subnets: []netip.Prefix{prefix("10.1.0.0/24"), prefix("fd00:1::/64")}, MTU: 1400,
			Routes: []dataplane.HostRoute{{Prefix: prefix("10.2.0.0/24"), MTU: 1300}, {Prefix: prefix("fd00:2::/64")}},
		}},
		{Op: opApply, State: &hostnet.State{Off: true}},
		{Op: opWatch},
		{Op: opPrefixes},
		{Op: opSocket, Socket: &socketRequest{Kind: kindTCP, V6: true}},
		{Op: opClose},
	}
}

func TestRequests(t *testing.T) {
	var b bytes.Buffer
	for _, want := range requests() {
		if err := writeMessage(&b, want); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range requests() {
		got, err := readRequest(&b)
		if err != nil {
			t.Fatal(err)
		}
		if d := diff(want, *got); d != "" {
			t.Error(d)
		}
	}
	if _, err := readRequest(&b); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// TestStateIsCarried fails when hostnet.State gets a field that JSON leaves out.
func TestStateIsCarried(t *testing.T) {
	for _, typ := range []reflect.Type{reflect.TypeFor[hostnet.State](), reflect.TypeFor[hostnet.Problem](), reflect.TypeFor[dataplane.HostRoute]()} {
		for f := range typ.Fields() {
			if !f.IsExported() || f.Tag.Get("json") == "-" {
				t.Errorf("%v.%s would be lost", typ, f.Name)
			}
		}
	}
}

func TestBadMessages(t *testing.T) {
	long := binary.BigEndian.AppendUint32(nil, maxMessage+1)
	frame := func(s string) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...) }
	for _, tt := range []struct {
		name string
		in   []byte
		want string
	}{
		{"nothing", nil, "EOF"},
		{"half a length", []byte{0, 0}, "unexpected EOF"},
		{"too long", long, "is announced"},
		{"cut off", binary.BigEndian.AppendUint32(nil, maxMessage), "unexpected EOF"},
		{"no JSON", frame("x"), "read a message: "},
		{"empty", frame(""), "read a message: "},
		{"more than one value", frame(`{"op":"watch"}{}`), "read a message: "},
		{"another type", frame(`{"op":1}`), "read a message: "},
		{"no request", frame(`{}`), `unknown request ""`},
		{"unknown", frame(`{"op":"exec"}`), `unknown request "exec"`},
		{"without a state", frame(`{"op":"apply"}`), `"apply" without`},
		{"without a name", frame(`{"op":"open"}`), `"open" without`},
		{"without a socket", frame(`{"op":"socket"}`), `"socket" without`},
		{"without a kind", frame(`{"op":"socket","socket":{"v6":true}}`), `"socket" without`},
		{"another kind", frame(`{"op":"socket","socket":{"kind":"raw"}}`), `"socket" without`},
	} {
		_, err := readRequest(bytes.NewReader(tt.in))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if err := writeMessage(io.Discard, response{Error: strings.Repeat("x", maxMessage)}); err == nil {
		t.Error("a message that nobody reads was written")
	}
}

func TestErrorsAreCarried(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		is   error
	}{
		{"none", nil, nil},
		{"words", errors.New("it is so"), nil},
		{"the system's", fmt.Errorf("open: %w", syscall.EPERM), syscall.EPERM},
		{"many words", errors.New(strings.Repeat("x", maxText+10)), nil},
	} {
		var r response
		r.fail(tt.err)
		var b bytes.Buffer
		if err := writeMessage(&b, r); err != nil {
			t.Fatal(err)
		}
		var got response
		if err := readMessage(&b, &got); err != nil {
			t.Fatal(err)
		}
		err := got.err()
		switch {
		case tt.err == nil:
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		case err == nil || err.Error() != tt.err.Error()[:min(len(tt.err.Error()), maxText)]:
			t.Errorf("%s: %v", tt.name, err)
		case tt.is != nil && !errors.Is(err, tt.is):
			t.Errorf("%s: %v is not %v", tt.name, err, tt.is)
		case tt.is == nil && errors.Unwrap(err) != nil:
			t.Errorf("%s wraps %v", tt.name, errors.Unwrap(err))
		}
	}
}

func FuzzReadRequest(f *testing.F) {
	for _, q := range requests() {
		var b bytes.Buffer
		if err := writeMessage(&b, q); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, '{', '}'})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		q, err := readRequest(r)
		if err != nil {
			return
		}
		if used, said := len(in)-r.Len(), 4+int(binary.BigEndian.Uint32(in)); used != said {
			t.Fatalf("%d bytes were read of a message of %d", used, said)
		}
		var b bytes.Buffer
		if err := writeMessage(&b, q); err != nil {
			t.Fatal(err)
		}
		again, err := readRequest(&b)
		if err != nil {
			t.Fatal(err)
		}
		if d := diff(q, again); d != "" {
			t.Fatal(d)
		}
	})
}
