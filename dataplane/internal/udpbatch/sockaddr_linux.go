package udpbatch

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sockaddr has room for either family; RawSockaddrInet4 fits into it.
type sockaddr = unix.RawSockaddrInet6

func (c *Conn) parseSockaddr(sa *sockaddr, size uint32) netip.AddrPort {
	switch {
	case sa.Family == unix.AF_INET && size >= unix.SizeofSockaddrInet4:
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(sa4.Addr), ntohs(sa4.Port))
	case sa.Family == unix.AF_INET6 && size >= unix.SizeofSockaddrInet6:
		a := netip.AddrFrom16(sa.Addr)
		if sa.Scope_id != 0 {
			a = a.WithZone(c.zones.name(sa.Scope_id))
		}
		return netip.AddrPortFrom(a, ntohs(sa.Port))
	}
	return netip.AddrPort{}
}

// putSockaddr writes to into sa and returns its size; zero means that the
// socket's family cannot reach it.
func (c *Conn) putSockaddr(sa *sockaddr, to netip.AddrPort) uint32 {
	a := to.Addr().Unmap()
	if c.v6 {
		if !a.Is6() {
			return 0
		}
		*sa = sockaddr{Family: unix.AF_INET6, Port: htons(to.Port()), Addr: a.As16()}
		if z := a.Zone(); z != "" {
			sa.Scope_id = c.zones.index(z)
		}
		return unix.SizeofSockaddrInet6
	}
	if !a.Is4() {
		return 0
	}
	sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
	*sa4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: htons(to.Port()), Addr: a.As4()}
	return unix.SizeofSockaddrInet4
}

func htons(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

func ntohs(v uint16) uint16 { return htons(v) }

// maxZones bounds the table: a host has few interfaces with VTEPs or peers.
const maxZones = 64

// zoneTable keeps the text of interface indexes, so that a link-local address
// costs no allocation per packet. The zero value is ready.
type zoneTable struct {
	mu    sync.Mutex
	texts map[uint32]string
	nums  map[string]uint32
}

func (t *zoneTable) name(index uint32) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.texts[index]
	if !ok {
		s = strconv.FormatUint(uint64(index), 10)
		if t.texts == nil || len(t.texts) >= maxZones {
			t.texts = make(map[uint32]string)
		}
		t.texts[index] = s
	}
	return s
}

// index returns the interface index for a zone, a number or a name; zero, which
// the kernel refuses for a link-local address, when there is no such interface.
func (t *zoneTable) index(zone string) uint32 {
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.nums[zone]
	if !ok {
		ifi, err := net.InterfaceByName(zone)
		if err != nil {
			return 0
		}
		n = uint32(ifi.Index)
		if t.nums == nil || len(t.nums) >= maxZones {
			t.nums = make(map[string]uint32)
		}
		t.nums[zone] = n
	}
	return n
}
