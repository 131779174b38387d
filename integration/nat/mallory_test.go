//go:build linux

package nat_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"corax/integration/lab"
)

// mallory is a host on the WAN that is nobody's peer, and can send with any IPv4
// source address.
type mallory struct {
	*lab.Host
	t   *testing.T
	own netip.AddrPort
	fd  int
}

func newMallory(t *testing.T, n *network) *mallory {
	t.Helper()
	m := &mallory{Host: n.Lab.Host("mallory"), t: t, own: netip.MustParseAddrPort("203.0.113.66:4500"), fd: -1}
	m.Attach(n.WAN, "eth0", netip.MustParsePrefix("203.0.113.66/24"))
	gw := netip.MustParseAddr("203.0.113.1")
	m.Route(lab.Route{Dst: lab.Default(gw), Via: gw})
	err := m.Do(func() (err error) {
		m.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(m.fd) })
	return m
}

// send sends one datagram, without UDP checksum. When there is no buffer left it
// is lost.
func (m *mallory) send(from, to netip.AddrPort, payload []byte) {
	p := make([]byte, 28, 28+len(payload))
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP // the kernel fills in length and checksum
	copy(p[12:], from.Addr().AsSlice())
	copy(p[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(p[20:], from.Port())
	binary.BigEndian.PutUint16(p[22:], to.Port())
	binary.BigEndian.PutUint16(p[24:], uint16(8+len(payload)))
	err := unix.Sendto(m.fd, append(p, payload...), 0, &unix.SockaddrInet4{Addr: to.Addr().As4()})
	if err != nil && err != unix.ENOBUFS {
		m.t.Errorf("send %d bytes from %v to %v: %v", len(payload), from, to, err)
	}
}

// payload returns what a captured UDP datagram over IPv4 carries.
func payload(f lab.Frame) []byte {
	const headers = 14 + 20 + 8
	if f.Protocol != unix.IPPROTO_UDP || !f.Src.Is4() || len(f.Data) < headers {
		return nil
	}
	return f.Data[headers:]
}

// isRelayFrame reports whether a captured packet carries a relay frame.
func isRelayFrame(f lab.Frame) bool {
	p := payload(f)
	return len(p) > 8 && p[0] == 0xc5
}

// marker is something to look for on the wire.
func marker() []byte {
	b := make([]byte, 24)
	_, _ = rand.Read(b)
	return b
}

// carries makes a filter for captures: the frame has the bytes in it.
func carries(mark []byte) func(lab.Frame) bool {
	return func(f lab.Frame) bool { return bytes.Contains(f.Data, mark) }
}

func capture(t *testing.T, h *lab.Host, link string, keep func(lab.Frame) bool) *lab.Capture {
	t.Helper()
	c, err := h.Capture(link, keep)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The types and attributes of STUN (RFC 8489, RFC 5780) that are used here.
const (
	bindingRequest = 0x0001
	bindingSuccess = 0x0101
	bindingNotice  = 0x0011 // indication

	attrUsername      = 0x0006
	attrIntegrity256  = 0x001c
	attrXORMapped     = 0x0020
	attrChangeRequest = 0x0003
	attrPadding       = 0x0026
	attrUnknown       = 0x7fff // must be understood
)

const cookie = 0x2112a442

type attribute struct {
	kind  uint16
	value []byte
}

// message makes a STUN message with a random transaction ID.
func message(kind uint16, attrs ...attribute) []byte {
	b := binary.BigEndian.AppendUint16(nil, kind)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint32(b, cookie)
	tx := make([]byte, 12)
	_, _ = rand.Read(tx)
	b = append(b, tx...)
	for _, a := range attrs {
		b = binary.BigEndian.AppendUint16(b, a.kind)
		b = binary.BigEndian.AppendUint16(b, uint16(len(a.value)))
		b = append(b, a.value...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-20))
	return b
}

// xorMapped is the attribute that names an IPv4 address.
func xorMapped(at netip.AddrPort) attribute {
	b := []byte{0, 1}
	b = binary.BigEndian.AppendUint16(b, at.Port()^cookie>>16)
	a := at.Addr().As4()
	return attribute{attrXORMapped, binary.BigEndian.AppendUint32(b, binary.BigEndian.Uint32(a[:])^cookie)}
}

// mappedIn returns the address in a Binding success response; false when it is
// none.
func mappedIn(b []byte) (netip.AddrPort, bool) {
	if len(b) < 20 || binary.BigEndian.Uint16(b) != bindingSuccess {
		return netip.AddrPort{}, false
	}
	for rest := b[20:]; len(rest) >= 4; {
		kind, n := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))
		rest = rest[4:]
		if n > len(rest) {
			break
		}
		if kind == attrXORMapped && n == 8 && rest[1] == 1 {
			p := binary.BigEndian.Uint16(rest[2:]) ^ cookie>>16
			a := binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(rest[4:])^cookie)
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte(a)), p), true
		}
		rest = rest[min((n+3)&^3, len(rest)):]
	}
	return netip.AddrPort{}, false
}
