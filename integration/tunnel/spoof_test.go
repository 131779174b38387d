//go:build linux

package tunnel_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"corax/integration/lab"
)

// spoofer sends UDP datagrams from a host with any source address.
type spoofer struct {
	t        *testing.T
	fd4, fd6 int
}

func newSpoofer(t *testing.T, h *lab.Host) *spoofer {
	t.Helper()
	s := &spoofer{t: t, fd4: -1, fd6: -1}
	err := h.Do(func() (err error) {
		// This protocol means that the header comes from us; the kernel
		// fills in the checksum of IPv4.
		s.fd4, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err == nil {
			s.fd6, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		}
		return err
	})
	t.Cleanup(func() {
		_ = unix.Close(s.fd4)
		_ = unix.Close(s.fd6)
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// send sends one datagram, without UDP checksum. A host that has no buffer left
// loses it.
func (s *spoofer) send(from, to netip.AddrPort, payload []byte) {
	s.t.Helper()
	u := udp(from.Port(), to.Port(), payload)
	var err error
	if to.Addr().Is4() {
		p := ipv4(from.Addr(), to.Addr(), unix.IPPROTO_UDP, 64, 0, u)
		err = unix.Sendto(s.fd4, p, 0, &unix.SockaddrInet4{Addr: to.Addr().As4()})
	} else {
		p := ipv6(from.Addr(), to.Addr(), unix.IPPROTO_UDP, 64, u)
		err = unix.Sendto(s.fd6, p, 0, &unix.SockaddrInet6{Addr: to.Addr().As16()})
	}
	if err != nil && err != unix.ENOBUFS {
		s.t.Errorf("send %d bytes from %v to %v: %v", len(payload), from, to, err)
	}
}

// ipv4 makes a packet with a good header.
func ipv4(src, dst netip.Addr, proto, ttl byte, fragment uint16, payload []byte) []byte {
	b := make([]byte, 20, 20+len(payload))
	b[0], b[8], b[9] = 0x45, ttl, proto
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(b[6:], fragment)
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(b[10:], internetChecksum(b))
	return append(b, payload...)
}

// ipv6 makes a packet.
func ipv6(src, dst netip.Addr, proto, hops byte, payload []byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	b[0], b[6], b[7] = 0x60, proto, hops
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	return append(b, payload...)
}

// udp makes a datagram without checksum, as IPv4 allows.
func udp(from, to uint16, payload []byte) []byte {
	b := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(payload)))
	return append(b, payload...)
}

// internetChecksum is that of RFC 1071, over an even number of bytes.
func internetChecksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
