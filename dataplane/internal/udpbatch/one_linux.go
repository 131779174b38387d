package udpbatch

import (
	"encoding/binary"
	"net"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// oneCtlWords is room for packet info of IPv6 and a hop limit: 64 bytes.
const oneCtlWords = 8

// oneSender sends datagrams one by one, each with options of its own. The zero
// value is ready. Its memory is small, since hundreds of sockets may have one.
type oneSender struct {
	mu   sync.Mutex // also: who turns DF on turns it off again
	name sockaddr
	iovs [2]unix.Iovec
	ctl  [oneCtlWords]uint64 // uint64 for the alignment
	hdr  unix.Msghdr

	df     bool
	v6     bool
	errno  unix.Errno
	direct func(fd uintptr) // s.send, made once
}

// WriteOne sends one datagram with options of its own, and returns the system's
// error: EMSGSIZE when the datagram is larger than the link, or with DF larger
// than the path is known to take. It does not wait for a full socket. While one
// with DF is on its way, others of the same Conn may leave with DF too. Safe for
// concurrent use.
func (c *Conn) WriteOne(m Message, o Options) error {
	s := &c.one
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.build(c, &m, o.TTL) {
		c.count.txFamily.Add(1)
		return unix.EAFNOSUPPORT
	}
	defer clear(s.iovs[:]) // keep no memory of the caller's
	s.df, s.v6 = o.DF, c.v6
	if s.direct == nil {
		s.direct = s.send
	}
	if err := c.raw.Control(s.direct); err != nil {
		c.count.drop(unix.EBADF, 1)
		return net.ErrClosed
	}
	c.count.txCalls.Add(1)
	if s.errno != 0 {
		c.count.drop(s.errno, 1)
		return s.errno
	}
	c.count.txDatagrams.Add(1)
	return nil
}

func (s *oneSender) build(c *Conn, m *Message, ttl int) bool {
	size := c.putSockaddr(&s.name, m.To)
	if size == 0 {
		return false
	}
	s.hdr = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&s.name)), Namelen: size, Iov: &s.iovs[0]}
	n := 0
	for _, part := range [2][]byte{m.Header, m.Payload} {
		if len(part) > 0 {
			s.iovs[n].Base = &part[0]
			s.iovs[n].SetLen(len(part))
			n++
		}
	}
	s.hdr.SetIovlen(n)
	buf := unsafe.Slice((*byte)(unsafe.Pointer(&s.ctl)), len(s.ctl)*8)
	used := 0
	if c.info && m.Local.IsValid() {
		used = putPacketInfo(buf, m.Local, c.v6)
	}
	if ttl > 0 {
		level, typ := int32(unix.IPPROTO_IP), int32(unix.IP_TTL)
		if c.v6 {
			level, typ = unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT
		}
		binary.NativeEndian.PutUint32(putCmsg(buf[used:], level, typ, 4), uint32(min(ttl, 255)))
		used += unix.CmsgSpace(4)
	}
	if used > 0 {
		s.hdr.Control = &buf[0]
		s.hdr.SetControllen(used)
	}
	return true
}

func (s *oneSender) send(fd uintptr) {
	if s.df {
		discover(int(fd), s.v6, true)
		defer discover(int(fd), s.v6, false)
	}
	for {
		_, _, s.errno = unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&s.hdr)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if s.errno != unix.EINTR {
			return
		}
	}
}

// discover sets DF on what the socket sends, whatever the kernel believes of the
// path's MTU, or clears it as setDiscovery does.
func discover(fd int, v6, on bool) {
	level, opt, value := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT
	if v6 {
		level, opt, value = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT
	}
	if on {
		value = unix.IP_PMTUDISC_PROBE // the same number for both
	}
	_ = unix.SetsockoptInt(fd, level, opt, value)
}
