package netstack

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// errorAbout makes an ICMP error about an echo request with identifier 7.
func errorAbout(router, from, to netip.Addr, kind, code byte) []byte {
	protocol, echo := header.ICMPv4ProtocolNumber, byte(header.ICMPv4Echo)
	if from.Is6() {
		protocol, echo = header.ICMPv6ProtocolNumber, byte(header.ICMPv6EchoRequest)
	}
	packet := func(src, dst netip.Addr, protocol tcpip.TransportProtocolNumber, payload []byte) []byte {
		b := make([]byte, ipLen(src)+len(payload))
		copy(b[ipLen(src):], payload)
		encodeIP(b, src, dst, protocol)
		return b
	}
	request := append([]byte{echo, 0, 0, 0}, binary.BigEndian.AppendUint16(nil, 7)...)
	quoted := packet(from, to, protocol, append(request, 0, 1))
	return packet(router, from, protocol, append([]byte{kind, code, 0, 0, 0, 0, 0, 0}, quoted...))
}

func TestParseUnanswered(t *testing.T) {
	from4, to4, router4 := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.9"), netip.MustParseAddr("192.0.2.1")
	from6, to6, router6 := netip.MustParseAddr("fd00:1::1"), netip.MustParseAddr("fd00:2::9"), netip.MustParseAddr("2001:db8::1")
	for _, tt := range []struct {
		kind, code byte
		v6         bool
		want       error
	}{
		{3, 0, false, syscall.EHOSTUNREACH},
		{3, 1, false, syscall.EHOSTUNREACH},
		{3, 2, false, syscall.ECONNREFUSED},
		{3, 3, false, syscall.ECONNREFUSED},
		{3, 4, false, nil},
		{3, 13, false, syscall.EACCES},
		{11, 0, false, syscall.EHOSTUNREACH},
		{0, 0, false, nil},
		{5, 0, false, nil},
		{1, 0, true, syscall.EHOSTUNREACH},
		{1, 1, true, syscall.EACCES},
		{1, 3, true, syscall.EHOSTUNREACH},
		{1, 4, true, syscall.ECONNREFUSED},
		{1, 5, true, syscall.EACCES},
		{2, 0, true, nil},
		{3, 0, true, syscall.EHOSTUNREACH},
		{129, 0, true, nil},
	} {
		p, want := errorAbout(router4, from4, to4, tt.kind, tt.code), pingEnds{from4, to4, 7}
		if tt.v6 {
			p, want = errorAbout(router6, from6, to6, tt.kind, tt.code), pingEnds{from6, to6, 7}
		}
		e, err := parseUnanswered(p)
		if !errors.Is(err, tt.want) || tt.want != nil && e != want {
			t.Errorf("type %d, code %d: %v, %v", tt.kind, tt.code, e, err)
		}
		for n := range p { // cut off anywhere
			if _, err := parseUnanswered(p[:n]); err != nil {
				t.Errorf("type %d, code %d: %d of %d bytes say %v", tt.kind, tt.code, n, len(p), err)
			}
		}
	}
	// About what somebody else sent.
	p := errorAbout(router4, from4, to4, 3, 1)
	p[19]++
	if _, err := parseUnanswered(p); err != nil {
		t.Error("not for its receiver")
	}
}

func FuzzParseUnanswered(f *testing.F) {
	f.Add(errorAbout(netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.9"), 3, 1))
	f.Add(errorAbout(netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("fd00:1::1"), netip.MustParseAddr("fd00:2::9"), 1, 0))
	f.Fuzz(func(t *testing.T, p []byte) {
		if e, err := parseUnanswered(p); err != nil && (!e.from.IsValid() || e.from.Is4() != e.to.Is4()) {
			t.Errorf("%v, %v", e, err)
		}
	})
}
