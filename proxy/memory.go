package proxy

import (
	"fmt"
	"math"
	"net"
	"syscall"
	"time"
)

const (
	// atRest is what a stream holds beside its buffers: goroutines, and what they
	// wait with.
	atRest = 32 << 10
	// mostWindow bounds a buffer of the overlay, mostKernel one of the host's TCP.
	mostWindow = 4 << 20
	mostKernel = 512 << 10
	// growWithin is in what time a stream has to move four times its buffer to be
	// given one of twice the size: a path of 600 ms still gets there.
	growWithin = 5 * time.Second
	// share is the part of what is free for growing that one stream may ask for at
	// once. One half of all there is never goes to that: it is for new streams.
	share = 8
)

// size is what the buffers of a new stream may hold, in bytes. Nothing is reserved
// by it but the right to do so.
type size struct {
	receive int // what came over the overlay
	other   int // each of the other three
}

// sizes are those of new streams, by how much of the memory is in use: up to an
// eighth, a quarter, a half, all of it. The receive buffer has room for the window
// of a handshake even at the floor: gVisor drops what has no room, and when the
// reader is slow both ends give the stream up for that.
func sizes() [4]size {
	return [4]size{{256 << 10, 64 << 10}, {128 << 10, 32 << 10}, {64 << 10, 16 << 10}, {48 << 10, 8 << 10}}
}

// cost is what a stream may hold at most until it grows.
func (z size) cost() int64 { return int64(atRest + z.receive + 3*z.other) }

// memory returns the bound, and no bound as a large one.
func (l Limits) memory() int64 {
	if l.Memory <= 0 {
		return math.MaxInt64 / 2
	}
	return l.Memory
}

// enter charges a new stream. It returns a [*Refusal] when not even the smallest
// buffers fit. How large they are goes by what would be held if no stream rested, so
// that those that wake find room. The registry is locked.
func (l *Live) enter(s *Stream) error {
	most := l.limits.memory()
	all := sizes()
	for i, z := range all {
		smallest := i == len(all)-1
		if l.held+z.cost() <= most && (smallest || l.held+l.resting+z.cost() <= most>>(len(all)-1-i)) {
			l.held += z.cost()
			s.size, s.charged, s.buffers = z, z.cost(), z.cost()-atRest
			return nil
		}
	}
	return Refuse(CodeMemory, fmt.Sprintf("%d streams may hold %d MiB, which is the limit", len(l.open), l.held>>20))
}

// lend charges an open stream for more, of which some are for its buffers, unless that
// is too large a part of what is left.
func (l *Live) lend(s *Stream, n, buffers int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.done || n > (l.limits.memory()/2-l.held)/share {
		return false
	}
	l.held += n
	s.charged += n
	s.buffers += buffers
	return true
}

// Memory returns how many bytes the open streams are charged for together: what those
// may hold that are not at rest, and what those do hold that are.
func (l *Live) Memory() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held
}

// Take asks for n bytes until Give or Close.
func (s *Stream) Take(n int) bool { return s.live.lend(s, int64(n), 0) }

// Give returns what was taken.
func (s *Stream) Give(n int) {
	l := s.live
	l.mu.Lock()
	defer l.mu.Unlock()
	if !s.done {
		l.held -= int64(n)
		s.charged -= int64(n)
	}
}

// end is a connection of a stream, with the buffers that it was given.
type end struct {
	read, write int // bytes
	most        int
	conn        buffered
	kernel      bool
	narrow      bool // its write buffer is as small as it gets, while it rests
}

// buffered is a connection whose buffers can be bounded.
type buffered interface {
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
}

// BindCaller bounds the buffers of the connection to the caller, before anything is
// read of it but the request; BindNode those of the one to the node. A connection
// may be one around another, of which it has NetConn.
func (s *Stream) BindCaller(c net.Conn) { s.bind(0, c) }

// BindNode is as BindCaller.
func (s *Stream) BindNode(c net.Conn) { s.bind(1, c) }

func (s *Stream) bind(i int, c net.Conn) {
	for {
		around, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = around.NetConn()
	}
	b, ok := c.(buffered)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &s.ends[i]
	s.flows[i].since = time.Now()
	*e = end{conn: b, read: s.size.receive, write: s.size.other, most: mostWindow}
	if _, e.kernel = c.(syscall.Conn); e.kernel {
		e.read, e.most = s.size.other, mostKernel
	}
	e.setRead(e.read)
	e.setWrite(e.write)
}

// setRead may fail for a connection that is closed, and then says nothing.
func (e *end) setRead(n int) {
	e.read = n
	_ = e.conn.SetReadBuffer(e.scale(n))
}

func (e *end) setWrite(n int) {
	e.write, e.narrow = n, false
	_ = e.conn.SetWriteBuffer(e.scale(n))
}

// scale is what the kernel is to be told: it takes twice that.
func (e *end) scale(n int) int {
	if e.kernel {
		return n / 2
	}
	return n
}

// flow is how a direction moved lately.
type flow struct {
	passed int
	since  time.Time
}

// Passed notes that n bytes came from the node, or for it, before they are written. A
// direction that fills its buffers all the time is given larger ones as long as there
// is memory. Those to read into are kept until the stream ends: what was once told to
// the other end cannot be taken back.
func (s *Stream) Passed(fromNode bool, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.moved = now
	s.passed += int64(n)
	s.wake()
	from, to, f := &s.ends[0], &s.ends[1], &s.flows[0]
	if fromNode {
		from, to, f = to, from, &s.flows[1]
	}
	if from.conn == nil || to.conn == nil {
		return
	}
	if to.narrow {
		to.setWrite(to.write)
	}
	f.passed += n
	size := max(from.read, to.write)
	if f.passed < 4*size {
		return
	}
	fast := now.Sub(f.since) <= growWithin
	f.passed, f.since = 0, now
	want := max(2*size, sizes()[0].receive)
	read, write := min(want, from.most), min(want, to.most)
	more := max(read-from.read, 0) + max(write-to.write, 0)
	if !fast || more == 0 || !s.live.lend(s, int64(more), int64(more)) {
		return
	}
	if read > from.read {
		from.setRead(read)
	}
	if write > to.write {
		to.setWrite(write)
	}
}
