package splice

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// small is what a direction at rest waits with, large what it copies with.
	small = 4 << 10
	large = 64 << 10
	// linger is how long a large buffer waits for more.
	linger = 100 * time.Millisecond
	// stallAfter is how long an end takes nothing until that counts as a stall.
	stallAfter = 10 * time.Second
	// defaultHalf is how long a stream with one direction may be at rest.
	defaultHalf = time.Hour
	// farewell is how long the last words of an end that is gone may take, and look how
	// often one asks.
	farewell, look = 5 * time.Minute, 50 * time.Millisecond
	// verdict is how long the end of a source waits for what a write to it comes to.
	verdict = time.Second
)

// Config says what is counted, and how long a stream may rest. All of it may be
// left out.
type Config struct {
	// Up and Down get the bytes from a to b, and back, as they are passed on; each
	// may be nil.
	Up, Down []*atomic.Uint64
	// Stalls counts how often an end took nothing for ten seconds.
	Stalls *atomic.Uint64
	// HalfIdle is how long a stream may be at rest of which one direction has
	// ended; zero means one hour. How long a whole one may is the caller's to say, by ctx.
	HalfIdle time.Duration
	// First is called once, when the first byte from b came; nil: nobody asks.
	First func()
	// Memory is asked for large buffers; nil: there is enough.
	Memory Memory
}

// Memory is what a stream may hold. Its methods may be called from two goroutines at
// once.
type Memory interface {
	// Take asks for n bytes until Give.
	Take(n int) bool
	Give(n int)
	// Passed notes that n bytes came from b, or from a, before they are written.
	Passed(fromB bool, n int)
}

// ErrHalfIdle ends a stream that has one direction left, and nothing to say there.
var ErrHalfIdle = errors.New("half closed, and nothing was sent for too long")

// An EndError is how an end of a stream failed.
type EndError struct {
	// B says that it was b, else it was a.
	B bool
	// Op is "read" or "write".
	Op  string
	Err error
}

// Error tells what failed; the caller knows who a and b are.
func (e *EndError) Error() string {
	end := "a"
	if e.B {
		end = "b"
	}
	return fmt.Sprintf("%s %s: %v", e.Op, end, e.Err)
}

// Unwrap returns the cause.
func (e *EndError) Unwrap() error { return e.Err }

// Pool joins streams, and keeps the large buffers that none of them needs now. The
// zero Pool is ready; its methods may be called from several goroutines at once.
type Pool struct{ buffers sync.Pool }

// get returns a large buffer; put gives it back.
func (p *Pool) get() *[large]byte {
	if b, ok := p.buffers.Get().(*[large]byte); ok {
		return b
	}
	return new([large]byte)
}

func (p *Pool) put(b *[large]byte) { p.buffers.Put(b) }

// Join copies between a and b until both directions have ended, one end fails, or
// ctx ends, and closes both. It returns nil after a proper end, the cause of ctx, or
// what failed first, which is an [*EndError] or [ErrHalfIdle].
func (p *Pool) Join(ctx context.Context, a, b net.Conn, cfg Config) error {
	j := &join{pool: p, cfg: cfg, pair: [2]net.Conn{a, b}}
	j.up = &direction{j: j, src: a, dst: b, counts: cfg.Up, over: make(chan struct{})}
	j.down = &direction{j: j, src: b, dst: a, fromB: true, counts: cfg.Down, over: make(chan struct{})}
	j.up.back, j.down.back = j.down, j.up
	if j.cfg.HalfIdle <= 0 {
		j.cfg.HalfIdle = defaultHalf
	}
	stop := context.AfterFunc(ctx, func() { j.breakOff(context.Cause(ctx)) })
	var wg sync.WaitGroup
	wg.Go(j.up.copy)
	j.down.copy()
	wg.Wait()
	stop()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken {
		return j.err
	}
	// Both have sent all and read the end of the other, so this is an orderly end.
	_ = a.Close()
	_ = b.Close()
	return nil
}

// join is one stream.
type join struct {
	pool  *Pool
	cfg   Config
	pair  [2]net.Conn // a and b
	first sync.Once

	up, down *direction

	mu     sync.Mutex
	broken bool
	err    error
	half   *time.Timer // nil: no direction has ended, or both have
}

// breakOff ends both directions at once. The first cause stays.
func (j *join) breakOff(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken {
		return
	}
	j.broken, j.err = true, err
	if j.half != nil {
		j.half.Stop()
	}
	for _, c := range j.pair {
		Abort(c)
	}
}

func (j *join) isBroken() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.broken
}

// Abort closes a connection with a reset where it can, so that its other end does
// not take it for complete.
func Abort(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(sec int) error }); ok {
		_ = l.SetLinger(0)
	}
	_ = c.Close()
}

// deaf reports whether somebody may have said all before a write failed, and closed
// without waiting for more. Linux has EPIPE for that, as the first error of a connection,
// and ECONNRESET for one that was reset before its end. ENOTCONN is what CloseWrite says
// of both; whoever reads the connection is told which it was.
func deaf(err error) bool {
	e, ok := errors.AsType[*EndError](err)
	return ok && e.Op == "write" && (errors.Is(e.Err, syscall.EPIPE) || errors.Is(e.Err, syscall.ENOTCONN))
}

// ended notes that a direction is over; of the first one that the other may not
// rest for ever.
func (j *join) ended() {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.broken:
	case j.half == nil:
		j.half = time.AfterFunc(j.cfg.HalfIdle, func() { j.breakOff(ErrHalfIdle) })
	default:
		j.half.Stop()
	}
}

// moved notes that a direction is alive.
func (j *join) moved() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.half != nil && !j.broken {
		j.half.Reset(j.cfg.HalfIdle)
	}
}

// direction is one way of a stream; its goroutine owns it.
type direction struct {
	j        *join
	src, dst net.Conn
	fromB    bool
	counts   []*atomic.Uint64
	back     *direction    // the other way
	over     chan struct{} // closed when it copies nothing any more
	stall    *time.Timer

	mu      sync.Mutex
	writing bool
	hold    *hold         // nil: nobody holds the source
	written chan struct{} // closed after the write; nil: nobody waits
}

// holder is a connection that somebody looks after while it is not read.
type holder interface {
	// Hold returns soon after until is closed. Nobody reads before.
	Hold(until <-chan struct{})
}

// hold is how one is told to end, and says that it has.
type hold struct{ until, ended chan struct{} }

// within returns what a connection is, or is around, that has the methods of T.
func within[T any](c net.Conn) (T, bool) {
	for {
		if t, ok := c.(T); ok {
			return t, true
		}
		around, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			var none T
			return none, false
		}
		c = around.NetConn()
	}
}

// copy is all of a direction.
func (d *direction) copy() {
	err := d.run()
	close(d.over)
	if deaf(err) {
		d.hear()
	}
	if err != nil {
		d.j.breakOff(err)
		return
	}
	d.j.ended()
}

// hear waits until the source has got all that the destination said, which is gone: by a
// reset the source would lose what is still on its way. Nothing tells when, so it asks.
// What the source says meanwhile nobody takes; it may need to say it before it reads on.
func (d *direction) hear() {
	d.j.ended() // so the other direction may not be at rest for ever
	void := make([]byte, small)
	tick := time.NewTicker(look)
	defer tick.Stop()
	var end time.Time // zero: the other direction still has something in its hands
	for said := false; !d.j.isBroken(); {
		select {
		case <-d.back.over:
			if end.IsZero() {
				end = time.Now().Add(farewell)
			}
			if hasAll(d.src) || !time.Now().Before(end) {
				return
			}
		default:
		}
		if said {
			<-tick.C
			continue
		}
		_ = d.src.SetReadDeadline(time.Now().Add(look))
		_, err := d.src.Read(void)
		said = err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
	}
}

// run copies until the source has ended, and passes that on.
func (d *direction) run() error {
	d.stall = time.AfterFunc(stallAfter, d.stalled)
	d.stall.Stop()
	little := make([]byte, small)
	for {
		n, err := d.src.Read(little)
		more := n == len(little)
		if n > 0 {
			if err := d.pass(little[:n]); err != nil {
				return err
			}
		}
		if err == nil && more {
			err = d.burst()
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return d.end()
		default:
			return d.failed(err)
		}
	}
}

// burst copies with a large buffer while there is enough to copy. Without memory for
// one nothing happens.
func (d *direction) burst() error {
	if m := d.j.cfg.Memory; m != nil {
		if !m.Take(large) {
			return nil
		}
		defer m.Give(large)
	}
	buf := d.j.pool.get()
	defer d.j.pool.put(buf)
	defer func() { _ = d.src.SetReadDeadline(time.Time{}) }()
	for slow := 0; slow < 4; {
		if err := d.src.SetReadDeadline(time.Now().Add(linger)); err != nil {
			return err
		}
		n, err := d.src.Read(buf[:])
		if n > 0 {
			if err := d.pass(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return err
		case n <= small:
			slow++
		default:
			slow = 0
		}
	}
	return nil
}

// pass writes to the other end, and counts.
func (d *direction) pass(b []byte) error {
	if d.fromB && d.j.cfg.First != nil {
		d.j.first.Do(d.j.cfg.First)
	}
	if m := d.j.cfg.Memory; m != nil {
		m.Passed(d.fromB, len(b))
	}
	n, err := d.write(b)
	for _, c := range d.counts {
		c.Add(uint64(n))
	}
	d.j.moved()
	return err
}

func (d *direction) write(b []byte) (int, error) {
	d.setWriting(true)
	d.stall.Reset(stallAfter)
	n, err := d.dst.Write(b)
	d.stall.Stop()
	if err != nil {
		err = &EndError{B: !d.fromB, Op: "write", Err: err}
		if !deaf(err) {
			d.j.breakOff(err)
		}
	}
	if h := d.setWriting(false); h != nil {
		close(h.until)
		<-h.ended
	}
	return n, err
}

func (d *direction) setWriting(is bool) *hold {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.hold
	d.writing, d.hold = is, nil
	if d.written != nil {
		close(d.written)
		d.written = nil
	}
	return h
}

// settled waits for a write in progress, for a while. One to a connection that is gone
// does not take long.
func (d *direction) settled() {
	d.mu.Lock()
	if !d.writing {
		d.mu.Unlock()
		return
	}
	if d.written == nil {
		d.written = make(chan struct{})
	}
	written := d.written
	d.mu.Unlock()
	select {
	case <-written:
	case <-time.After(verdict):
	}
}

// stalled counts a destination that takes nothing, and looks after the source until it
// does.
func (d *direction) stalled() {
	if s := d.j.cfg.Stalls; s != nil {
		s.Add(1)
	}
	src, ok := within[holder](d.src)
	if !ok {
		return
	}
	h := &hold{make(chan struct{}), make(chan struct{})}
	d.mu.Lock()
	if !d.writing || d.hold != nil {
		d.mu.Unlock()
		return
	}
	d.hold = h
	d.mu.Unlock()
	src.Hold(h.until)
	close(h.ended)
}

// end passes on that the source has ended. A destination that is gone by then has
// ended too. A connection that was reset tells so once: when a write is told, a read
// takes the end that follows for an orderly one.
func (d *direction) end() error {
	d.back.settled()
	if d.j.isBroken() {
		return nil
	}
	if _, ok := within[interface{ ConnectionState() tls.ConnectionState }](d.dst); ok {
		d.empty() // its CloseWrite gives up after five seconds
	}
	c, ok := d.dst.(interface{ CloseWrite() error })
	if !ok {
		return d.failed(io.EOF)
	}
	if err := c.CloseWrite(); err != nil && !errors.Is(err, net.ErrClosed) {
		return &EndError{B: !d.fromB, Op: "write", Err: err}
	}
	return nil
}

// empty waits until the destination has got all that was written so far, for a while.
func (d *direction) empty() {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for end := time.Now().Add(farewell); !hasAll(d.dst) && !d.j.isBroken() && time.Now().Before(end); {
		<-tick.C
	}
}

func (d *direction) failed(err error) error {
	if e, ok := errors.AsType[*EndError](err); ok {
		return e
	}
	return &EndError{B: d.fromB, Op: "read", Err: err}
}
