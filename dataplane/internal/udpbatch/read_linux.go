package udpbatch

import (
	"cmp"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"corax/dataplane"
)

const (
	slotSize   = 64 << 10 // the largest super-datagram
	lightSlot  = 9 << 10  // of a Light socket: the largest datagram on an Ethernet
	minSlots   = 2
	maxSlots   = 16
	readBytes  = 128 << 10 // about as much as one call should bring
	rxCtlWords = 16        // 128 bytes: UDP_GRO, packet info and SO_RXQ_OVFL

	// errorPause keeps a socket that fails for a reason nobody foresaw from
	// burning a core.
	errorPause = 10 * time.Millisecond
)

// receiver is the state of the one reading goroutine. Slots are allocated when
// traffic first fills the ones before; pages that no datagram reached stay
// untouched.
type receiver struct {
	c       *Conn
	recv    func(fd uintptr) bool // c.rx.once, made once
	look    func(fd uintptr) bool // c.rx.peek, made once
	light   bool                  // small slots, one at a time
	most    int                   // slots that there may be
	n       int                   // slots with memory
	use     int                   // slots that a call offers
	base    int                   // the first slot of the last call
	hdrs    [maxSlots]mmsghdr
	iovs    [maxSlots]unix.Iovec
	names   [maxSlots]sockaddr
	ctls    [maxSlots][rxCtlWords]uint64 // uint64 for the alignment
	bufs    [maxSlots][]byte
	filled  int // by the last call
	errno   unix.Errno
	dropped uint32 // SO_RXQ_OVFL at the last message that had it

	next  int // the first slot of the last call that is not cut up yet, from base on
	rest  []byte
	empty bool // the slot is one datagram without bytes
	seg   int
	from  netip.AddrPort
	local netip.Addr
}

func (r *receiver) init(c *Conn, cfg Config) {
	r.c = c
	r.recv, r.look = r.once, r.peek
	r.light = cfg.Light
	r.most = max(minSlots, min(cmp.Or(cfg.Slots, maxSlots), maxSlots))
	r.use = minSlots
	if r.light {
		r.use = 1
	}
	r.grow(r.use)
}

// enlarge gives a Light socket what the others have. Only the reader does that,
// between two calls: GRO before the slots are large would cut datagrams off.
func (r *receiver) enlarge() {
	r.light, r.n, r.use = false, 0, minSlots
	r.grow(r.use)
	_ = r.c.raw.Control(func(fd uintptr) {
		setBuffer(int(fd), unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, defaultBuffer)
		setBuffer(int(fd), unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, defaultBuffer)
		if !r.c.single.Load() {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1)
		}
	})
}

func (r *receiver) grow(n int) {
	size := slotSize
	if r.light {
		size = lightSlot
	}
	for i := r.n; i < n; i++ {
		r.bufs[i] = make([]byte, size)
		r.iovs[i].Base = &r.bufs[i][0]
		r.iovs[i].SetLen(size)
		h := &r.hdrs[i].Msghdr
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Control = (*byte)(unsafe.Pointer(&r.ctls[i]))
	}
	r.n = max(r.n, n)
}

// reset restores what the kernel overwrote in a used header.
func (r *receiver) reset(i int) {
	h := &r.hdrs[i].Msghdr
	h.Namelen = uint32(unsafe.Sizeof(r.names[i]))
	h.SetControllen(int(unsafe.Sizeof(r.ctls[i])))
	h.Flags = 0
}

// Read fills dst with at least one datagram, blocking until there is one, and
// returns how many. When more of them wait, one system call more brings as many as
// leave in full super-datagrams again ([dataplane.Batch]), if there are slots for it.
// What it does not return is kept for the next Read. Only one goroutine may read. The
// only error is net.ErrClosed.
func (c *Conn) Read(dst []Datagram) (int, error) {
	if len(dst) == 0 {
		return 0, nil
	}
	r := &c.rx
	n := r.take(dst, 0)
	kept := n > 0 // from the Read before: what waits now is not known
	for n == 0 {
		if err := r.fill(); err != nil {
			return 0, err
		}
		n = r.take(dst, 0)
	}
	if n < batch(dst) && (kept || r.filled == r.use) && r.more() {
		n = r.take(dst, n)
	}
	c.count.rxDatagrams.Add(uint64(n))
	return n, nil
}

// batch is how many datagrams like the first a Read returns at most.
func batch(dst []Datagram) int { return dataplane.Batch(len(dst), len(dst[0].Data)) }

// fill blocks until one call has received something. Nothing received is left.
func (r *receiver) fill() error {
	if r.light && r.c.promote.Load() {
		r.enlarge()
	}
	r.adapt()
	r.offer(0)
	for {
		if err := r.c.raw.Read(r.recv); err != nil {
			if errors.Is(err, net.ErrClosed) {
				return net.ErrClosed
			}
			r.errno = unix.EIO // not the socket's: count it, and look again
		}
		switch r.errno {
		case 0:
			r.c.count.rxCalls.Add(1)
			return nil
		case unix.ENOSYS:
			r.c.single.Store(true)
		default:
			r.c.count.rxErrors.Add(1)
			if !r.pause() {
				return net.ErrClosed
			}
		}
	}
}

// more makes a call that does not block, into slots beside those of the last one, whose
// datagrams all are in the reader's hands. False means that it brought nothing.
func (r *receiver) more() bool {
	r.adapt()
	at := 0
	if r.base < r.use {
		at = r.base + r.filled
	}
	if r.light || at+r.use > r.most {
		r.filled, r.next = 0, 0
		return false
	}
	r.grow(at + r.use)
	r.offer(at)
	if r.c.raw.Read(r.look) != nil {
		r.filled = 0
		return false // closed, as the next Read finds
	}
	switch r.errno {
	case 0:
		r.c.count.rxCalls.Add(1)
		return true
	case unix.EAGAIN:
	default:
		r.c.count.rxErrors.Add(1)
	}
	r.filled = 0
	return false
}

// offer makes ready the slots of the next call, from the one at base on.
func (r *receiver) offer(base int) {
	r.base, r.filled, r.next = base, 0, 0
	for i := base; i < base+r.use; i++ {
		r.reset(i)
	}
}

// adapt chooses how many slots the next call offers, when the last one filled
// all that it had: more for small datagrams, to save calls, and fewer for
// super-datagrams, to cut them up while they are in the processor's cache.
func (r *receiver) adapt() {
	if r.light || r.filled < r.use || r.c.single.Load() {
		return
	}
	bytes := 0
	for i := range r.filled {
		bytes += int(r.hdrs[r.base+i].n)
	}
	switch {
	case bytes <= readBytes/2 && r.use < r.most:
		r.use = min(2*r.use, r.most)
		r.grow(r.use)
	case bytes > readBytes && r.use > minSlots:
		r.use /= 2
	}
}

// pause waits a moment after an error; false means that the Conn was closed.
func (r *receiver) pause() bool {
	t := time.NewTimer(errorPause)
	defer t.Stop()
	select {
	case <-r.c.done:
		return false
	case <-t.C:
		return true
	}
}

// once makes one system call; false asks the poller to wait.
func (r *receiver) once(fd uintptr) bool {
	for {
		r.filled, r.errno = r.c.recvBatch(fd, r.hdrs[r.base:r.base+r.use])
		switch r.errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		}
		return true
	}
}

// peek makes one system call, and never waits.
func (r *receiver) peek(fd uintptr) bool {
	r.once(fd)
	return true
}

// take cuts what has been received into dst, after the n datagrams that are there,
// and returns how many there are then.
func (r *receiver) take(dst []Datagram, n int) int {
	limit := len(dst)
	if n > 0 {
		limit = batch(dst)
	}
	for n < limit {
		if len(r.rest) == 0 && !r.empty {
			if r.next == r.filled {
				break
			}
			r.open(r.base + r.next)
			r.next++
			continue
		}
		k := min(r.seg, len(r.rest))
		d := &dst[n] // field by field: see dataplane.Packet
		d.Data, d.From, d.Local = r.rest[:k:k], r.from, r.local
		r.rest = r.rest[k:]
		r.empty = false
		if n++; n == 1 {
			limit = batch(dst)
		}
	}
	return n
}

// open makes slot i the one to cut up; it leaves nothing when the kernel lost a
// part of it, because then the segment size may be missing.
func (r *receiver) open(i int) {
	h := &r.hdrs[i]
	r.rest, r.empty = nil, false
	r.seg, r.local = int(h.n), netip.Addr{}
	r.controls(unsafe.Slice(h.Control, int(h.Controllen)))
	if h.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		r.c.count.rxTruncated.Add(1)
		return
	}
	r.from = r.c.parseSockaddr(&r.names[i], h.Namelen)
	r.rest = r.bufs[i][:h.n]
	r.empty = h.n == 0
}

func (r *receiver) controls(b []byte) {
	for len(b) >= unix.SizeofCmsghdr {
		hdr, data, rest, err := unix.ParseOneSocketControlMessage(b)
		if err != nil {
			return
		}
		b = rest
		switch {
		case hdr.Level == unix.IPPROTO_UDP && hdr.Type == unix.UDP_GRO && len(data) >= 4:
			if seg := int(binary.NativeEndian.Uint32(data)); seg > 0 {
				r.seg = seg
			}
		case hdr.Level == unix.IPPROTO_IP && hdr.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			r.local = netip.AddrFrom4([4]byte(data[8:12]))
		case hdr.Level == unix.IPPROTO_IPV6 && hdr.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			r.local = netip.AddrFrom16([16]byte(data[:16]))
		case hdr.Level == unix.SOL_SOCKET && hdr.Type == unix.SO_RXQ_OVFL && len(data) >= 4:
			total := binary.NativeEndian.Uint32(data)
			r.c.count.rxOverflow.Add(uint64(total - r.dropped))
			r.dropped = total
		}
	}
}
