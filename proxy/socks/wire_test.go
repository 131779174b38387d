package socks

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
)

func TestReadRequest(t *testing.T) {
	for _, tt := range []struct {
		name string
		b    string
		cmd  byte
		want target
		err  error
	}{
		{"IPv4", "\x05\x01\x00\x01\x0a\x01\x02\x03\x00\x50", 1, target{"10.1.2.3", 80}, nil},
		{"name", "\x05\x01\x00\x03\x05a.b-c\x01\xbb", 1, target{"a.b-c", 443}, nil},
		{"IPv6", "\x05\x03\x00\x04\xfd\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x35", 3, target{"fd00:1::2", 53}, nil},
		{"mapped", "\x05\x01\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x7f\x00\x00\x01\x00\x50", 1, target{"127.0.0.1", 80}, nil},
		{"version 4", "\x04\x01\x00\x01\x0a\x01\x02\x03\x00\x50", 0, target{}, errVersion},
		{"type", "\x05\x01\x00\x02\x0a", 1, target{}, errAddrType},
		{"empty name", "\x05\x01\x00\x03\x00\x01\xbb", 1, target{}, errName},
		{"name with a line", "\x05\x01\x00\x03\x03a\nb\x01\xbb", 1, target{}, errName},
		{"short", "\x05\x01\x00\x01\x0a\x01", 1, target{}, io.ErrUnexpectedEOF},
		{"nothing", "", 0, target{}, io.EOF},
	} {
		cmd, got, err := readRequest(strings.NewReader(tt.b))
		if cmd != tt.cmd || got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s: %d, %v, %v", tt.name, cmd, got, err)
		}
	}
}

func TestReadPassword(t *testing.T) {
	for _, tt := range []struct {
		b, user, password string
		ok                bool
	}{
		{"\x01\x01a\x02bc", "a", "bc", true},
		{"\x01\x00\x00", "", "", true},
		{"\x05\x01a\x02bc", "", "", false},
		{"\x01\x05a", "", "", false},
	} {
		u, p, err := readPassword(strings.NewReader(tt.b))
		if (err == nil) != tt.ok || u != tt.user || p != tt.password {
			t.Errorf("%q: %q, %q, %v", tt.b, u, p, err)
		}
	}
}

func TestDatagram(t *testing.T) {
	from := netip.MustParseAddrPort("[fd00:1::2]:53")
	b := append(appendDatagram(nil, from), "payload"...)
	got, payload, err := parseDatagram(b)
	if err != nil || got != (target{"fd00:1::2", 53}) || string(payload) != "payload" {
		t.Errorf("%v, %q, %v", got, payload, err)
	}
	b[2] = 1
	if _, _, err := parseDatagram(b); !errors.Is(err, errFragment) {
		t.Errorf("a fragment: %v", err)
	}
	for i := range len(b) - len("payload") {
		if _, _, err := parseDatagram(b[:i]); err == nil {
			t.Errorf("%d bytes are enough", i)
		}
	}
}

func FuzzReadRequest(f *testing.F) {
	f.Add([]byte("\x05\x01\x00\x01\x0a\x01\x02\x03\x00\x50"))
	f.Add([]byte("\x05\x03\x00\x03\x05a.b-c\x01\xbb"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, got, err := readRequest(bytes.NewReader(b)); err == nil && !goodName(got.host) {
			t.Errorf("%x: %q", b, got.host)
		}
		_, _ = readGreeting(bytes.NewReader(b))
		_, _, _ = readPassword(bytes.NewReader(b))
	})
}

func FuzzParseDatagram(f *testing.F) {
	f.Add(append(appendDatagram(nil, netip.MustParseAddrPort("10.0.0.1:53")), 1, 2, 3))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, payload, err := parseDatagram(b)
		if err != nil {
			return
		}
		if !bytes.HasSuffix(b, payload) {
			t.Errorf("%x: payload %x", b, payload)
		}
		if a, err := netip.ParseAddr(got.host); err == nil && b[3] != addrName {
			again := append(appendDatagram(nil, netip.AddrPortFrom(a, got.port)), payload...)
			if g, p, err := parseDatagram(again); err != nil || g != got || !bytes.Equal(p, payload) {
				t.Errorf("%x: not the same again: %v, %x, %v", b, g, p, err)
			}
		}
	})
}

func FuzzReadConnect(f *testing.F) {
	f.Add("CONNECT a.b:80 HTTP/1.1\r\nHost: a.b:80\r\nProxy-Authorization: Basic YTpi\r\n\r\n")
	f.Add("GET http://a.b/ HTTP/1.1\r\nHost: a.b\r\n\r\n")
	f.Add("CONNECT [fd00::1]:80 HTTP/1.1\r\n\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		got, _, _, err := readConnect(bufio.NewReader(strings.NewReader(s)))
		if err == nil && (!goodName(got.host) || got.port == 0) {
			t.Errorf("%q: %v", s, got)
		}
	})
}

func TestReadConnect(t *testing.T) {
	for _, tt := range []struct {
		text string
		want target
		user string
		code int
	}{
		{"CONNECT a.b:80 HTTP/1.1\r\nHost: c:9\r\n\r\n", target{"a.b", 80}, "", 0},
		{"CONNECT [fd00::1]:443 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic YTpi\r\n\r\n", target{"fd00::1", 443}, "a", 0},
		{"GET / HTTP/1.1\r\nHost: a:80\r\n\r\n", target{}, "", 405},
		{"CONNECT a.b HTTP/1.1\r\nHost: a.b\r\n\r\n", target{}, "", 400},
		{"CONNECT a.b:0 HTTP/1.1\r\nHost: a.b\r\n\r\n", target{}, "", 400},
		{"CONNECT a.b:70000 HTTP/1.1\r\nHost: a.b\r\n\r\n", target{}, "", 400},
		{"hello\r\n\r\n", target{}, "", 400},
	} {
		got, user, _, err := readConnect(bufio.NewReader(strings.NewReader(tt.text)))
		bad, _ := errors.AsType[*badRequest](err)
		if got != tt.want || user != tt.user || (bad != nil) != (tt.code != 0) || bad != nil && bad.code != tt.code {
			t.Errorf("%q: %v, %q, %v", tt.text, got, user, err)
		}
	}
}
