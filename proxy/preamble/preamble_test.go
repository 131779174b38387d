package preamble_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"corax/proxy"
	"corax/proxy/preamble"
)

func TestAsk(t *testing.T) {
	for _, target := range []proxy.Target{
		{Node: "n", Port: 1},
		{Node: "edge-a.example.com", Port: 10250},
		{Node: strings.Repeat("x", 253), Port: 65535},
	} {
		b, err := preamble.AppendAsk(nil, target)
		if err != nil {
			t.Fatal(err)
		}
		r := iotest.OneByteReader(bytes.NewReader(append(b, "rest"...)))
		got, err := preamble.ReadAsk(r)
		if err != nil || got != target {
			t.Errorf("read %v, %v; want %v", got, err, target)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "rest" {
			t.Errorf("%q is left behind the ask of %s", rest, target)
		}
	}
	if b, _ := preamble.AppendAsk(nil, proxy.Target{Node: "n1", Port: 10250}); string(b) != "cxp\x01\x04\x28\x0an1" {
		t.Errorf("the ask on the wire is %q", b)
	}
}

func TestAskRefuses(t *testing.T) {
	for _, target := range []proxy.Target{
		{Port: 1}, {Node: "n"}, {Node: strings.Repeat("x", 254), Port: 1}, {Node: "a b", Port: 1}, {Node: "ä", Port: 1},
	} {
		if _, err := preamble.AppendAsk(nil, target); !errors.Is(err, preamble.ErrMalformed) {
			t.Errorf("AppendAsk(%v): %v", target, err)
		}
	}
	for _, tt := range []struct {
		name, in string
		want     error
	}{
		{"nothing", "", io.EOF},
		{"cut in the head", "cxp", io.ErrUnexpectedEOF},
		{"cut in the name", "cxp\x01\x06\x28\x0an1", io.ErrUnexpectedEOF},
		{"cut before the port", "cxp\x01\x06", io.ErrUnexpectedEOF},
		{"HTTP", "GET / HTTP/1.1\r\n\r\n", preamble.ErrMalformed},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00", preamble.ErrMalformed},
		{"another version", "cxp\x02\x04\x28\x0an1", preamble.ErrMalformed},
		{"no port", "cxp\x01\x01\x28", preamble.ErrMalformed},
		{"no name", "cxp\x01\x02\x28\x0a", preamble.ErrMalformed},
		{"port 0", "cxp\x01\x04\x00\x00n1", preamble.ErrMalformed},
		{"a line break in the name", "cxp\x01\x04\x28\x0an\n", preamble.ErrMalformed},
		{"254 bytes of name", "cxp\x01\x00\x28\x0a", preamble.ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := preamble.ReadAsk(strings.NewReader(tt.in)); !errors.Is(err, tt.want) {
				t.Errorf("ReadAsk = %v, %v; want %v", got, err, tt.want)
			}
		})
	}
}

func TestAnswer(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   *proxy.Refusal
		want *proxy.Refusal
	}{
		{"served", nil, nil},
		{"refused", proxy.Refuse(proxy.CodePort, "port 22 may not be dialled"), proxy.Refuse(proxy.CodePort, "port 22 may not be dialled")},
		{"no text", proxy.Refuse(proxy.CodeOff, ""), proxy.Refuse(proxy.CodeOff, "")},
		{"a code of the future", proxy.Refuse(200, "new"), proxy.Refuse(200, "new")},
		{"lines", proxy.Refuse(proxy.CodeDial, "a\r\nb\x00c\x1b[31m\xff"), proxy.Refuse(proxy.CodeDial, "a  b c [31m ")},
		{"long", proxy.Refuse(proxy.CodeDial, strings.Repeat("ä", 200)), proxy.Refuse(proxy.CodeDial, strings.Repeat("ä", 127))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := iotest.OneByteReader(io.MultiReader(bytes.NewReader(preamble.AppendAnswer(nil, tt.in)), strings.NewReader("rest")))
			got, err := preamble.ReadAnswer(r)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if rest, _ := io.ReadAll(r); string(rest) != "rest" {
				t.Errorf("%q is left behind the answer", rest)
			}
		})
	}
}

func TestAnswerRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     error
	}{
		{"nothing", "", io.EOF},
		{"one byte", "\x04", io.ErrUnexpectedEOF},
		{"cut in the text", "\x04\x05abc", io.ErrUnexpectedEOF},
		{"text to a yes", "\x00\x03abc", preamble.ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := preamble.ReadAnswer(strings.NewReader(tt.in)); !errors.Is(err, tt.want) {
				t.Errorf("ReadAnswer = %v, %v; want %v", got, err, tt.want)
			}
		})
	}
}

func FuzzAsk(f *testing.F) {
	f.Add([]byte("cxp\x01\x04\x28\x0an1rest"))
	f.Add([]byte("cxp\x01\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		target, err := preamble.ReadAsk(bytes.NewReader(in))
		if err != nil {
			return
		}
		out, err := preamble.AppendAsk(nil, target)
		if err != nil || !bytes.HasPrefix(in, out) {
			t.Errorf("%q was read as %v, which is written as %q, %v", in, target, out, err)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("\x00\x00rest"))
	f.Add([]byte("\x04\x03no!"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := preamble.ReadAnswer(bytes.NewReader(in))
		if err != nil {
			return
		}
		again, err := preamble.ReadAnswer(bytes.NewReader(preamble.AppendAnswer(nil, r)))
		if diff := cmp.Diff(r, again); diff != "" || err != nil {
			t.Errorf("%q: %v\n%s", in, err, diff)
		}
	})
}
