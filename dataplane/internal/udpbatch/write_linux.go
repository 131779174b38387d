package udpbatch

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	txHdrs     = 64  // messages, or runs, per system call
	txIovs     = 512 // two per message
	txCtlWords = 8   // 64 bytes: packet info and UDP_SEGMENT
)

// run is a stretch of messages that leaves as one message of the kernel.
type run struct {
	iov  int // the first iovec
	n    int // messages
	size int // bytes of each but the last
	last int // bytes of the last
}

// txBatch is what one sendmmsg takes.
type txBatch struct {
	n     int
	hdrs  [txHdrs]mmsghdr
	names [txHdrs]sockaddr
	ctls  [txHdrs][txCtlWords]uint64 // uint64 for the alignment
	runs  [txHdrs]run
}

// sender is the scratch of one Write. It lives on the heap, as do the buffers
// that its iovecs point to: Go does not move them while the kernel reads.
type sender struct {
	c     *Conn
	try   bool     // do not wait for room
	b     *txBatch // the batch being sent
	off   int      // its first run not sent yet
	took  int      // runs that the last call took
	errno unix.Errno
	// refused counts the messages that a full or closed socket did not take.
	refused int
	direct  func(fd uintptr)      // s.once, made once
	polled  func(fd uintptr) bool // s.ready, made once

	main   txBatch
	locals [txHdrs]netip.Addr // of main's runs
	split  *txBatch           // for a refused run; nil until one was
	niov   int
	iovs   [txIovs]unix.Iovec
}

func newSender(c *Conn) *sender {
	s := &sender{c: c}
	s.direct = s.once
	s.polled = s.ready
	return s
}

// Write sends msgs in order and returns how many the kernel took. Runs with the
// same To, Local and size (a shorter one only last) leave as one UDP_SEGMENT. A
// message that the kernel refuses is dropped and counted, the others still go.
// It may wait tens of milliseconds for a full socket. Safe for concurrent use.
func (c *Conn) Write(msgs []Message) (sent int) {
	sent, _ = c.write(msgs, false)
	return sent
}

// TryWrite is Write that never waits: when the socket is full, the rest of msgs
// is dropped. It returns how many messages were sent and how many, the last
// ones, were dropped for want of room.
func (c *Conn) TryWrite(msgs []Message) (sent, refused int) { return c.write(msgs, true) }

func (c *Conn) write(msgs []Message, try bool) (sent, refused int) {
	s := c.senders.Get().(*sender)
	s.try, s.refused = try, 0
	for len(msgs) > 0 {
		n := s.fill(msgs)
		k, ok := s.flush(&s.main)
		sent += k
		msgs = msgs[n:]
		if !ok {
			c.count.drop(s.errno, len(msgs))
			s.refused += len(msgs)
			break
		}
	}
	refused = s.refused
	c.senders.Put(s)
	c.count.txDatagrams.Add(uint64(sent))
	return sent, refused
}

// fill builds runs from the head of msgs and returns how many it used.
func (s *sender) fill(msgs []Message) int {
	b := &s.main
	b.n, s.niov = 0, 0
	i := 0
	for i < len(msgs) && b.n < txHdrs && s.niov+2 <= txIovs {
		size := s.c.putSockaddr(&b.names[b.n], msgs[i].To)
		if size == 0 {
			s.c.count.txFamily.Add(1)
			i++
			continue
		}
		i += s.fillRun(b, msgs[i:], size)
	}
	return i
}

// fillRun makes one run from the head of msgs and returns its length.
func (s *sender) fillRun(b *txBatch, msgs []Message, nameLen uint32) int {
	m := &msgs[0]
	r := run{iov: s.niov, n: 1, size: len(m.Header) + len(m.Payload)}
	r.last = r.size
	s.put(m)
	limit := min(s.c.gso.run(s.c, m.To.Addr(), r.size), len(msgs))
	for r.n < limit && s.niov+2 <= txIovs && r.last == r.size {
		next := &msgs[r.n]
		size := len(next.Header) + len(next.Payload)
		if size == 0 || size > r.size || next.To != m.To || next.Local != m.Local {
			break
		}
		s.put(next)
		r.last = size
		r.n++
	}
	h := &b.hdrs[b.n].Msghdr
	h.Name = (*byte)(unsafe.Pointer(&b.names[b.n]))
	h.Namelen = nameLen
	h.Iov = &s.iovs[r.iov]
	h.SetIovlen(s.niov - r.iov)
	s.control(h, &b.ctls[b.n], m.Local, r)
	s.locals[b.n] = m.Local
	b.runs[b.n] = r
	b.n++
	return r.n
}

func (s *sender) put(m *Message) {
	s.putPart(m.Header)
	s.putPart(m.Payload)
}

func (s *sender) putPart(b []byte) {
	if len(b) == 0 {
		return
	}
	s.iovs[s.niov].Base = &b[0]
	s.iovs[s.niov].SetLen(len(b))
	s.niov++
}

// control writes the control messages of a run, when it needs any.
func (s *sender) control(h *unix.Msghdr, words *[txCtlWords]uint64, local netip.Addr, r run) {
	buf := unsafe.Slice((*byte)(unsafe.Pointer(words)), txCtlWords*8)
	n := 0
	if s.c.info && local.IsValid() {
		n = putPacketInfo(buf, local, s.c.v6)
	}
	if r.n > 1 {
		data := putCmsg(buf[n:], unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2)
		binary.NativeEndian.PutUint16(data, uint16(r.size))
		n += unix.CmsgSpace(2)
	}
	h.Control = nil
	if n > 0 {
		h.Control = &buf[0]
	}
	h.SetControllen(n)
}

func putPacketInfo(buf []byte, local netip.Addr, v6 bool) int {
	local = local.Unmap()
	switch {
	case v6 && local.Is6():
		data := putCmsg(buf, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
		a := local.As16()
		clear(data)
		copy(data, a[:])
		return unix.CmsgSpace(unix.SizeofInet6Pktinfo)
	case !v6 && local.Is4():
		data := putCmsg(buf, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		a := local.As4()
		clear(data)
		copy(data[4:], a[:]) // ipi_spec_dst
		return unix.CmsgSpace(unix.SizeofInet4Pktinfo)
	}
	return 0
}

// putCmsg writes the header of a control message and returns its data.
func putCmsg(buf []byte, level, typ int32, size int) []byte {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&buf[0]))
	h.Level, h.Type = level, typ
	h.SetLen(unix.CmsgLen(size))
	return buf[unix.CmsgLen(0):unix.CmsgLen(size)]
}
