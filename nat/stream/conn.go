package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"corax/dataplane/key"
)

// writeTimeout ends a stream whose peer takes nothing: long before TCP gives up
// and long after the paths have left it.
const writeTimeout = 10 * time.Second

// errClosed says that this end closed the stream.
var errClosed = errors.New("closed")

// A Conn is one stream with a peer that has proven its key. [Dial] makes one end,
// a [Server] the other. Its methods are safe for concurrent use.
type Conn struct {
	tls     *tls.Conn
	raw     net.Conn
	peer    key.Public
	remote  netip.AddrPort
	counts  *Counts
	receive func(c *Conn, datagrams [][]byte)
	stores  *sync.Pool
	opened  time.Time
	wake    chan struct{} // something is queued
	done    chan struct{} // closed by end

	dropped, sent, got, sentB, gotB atomic.Uint64
	heard                           atomic.Int64 // since opened; 0: nothing

	mu    sync.Mutex
	queue queue
	cause error // why it ended; nil while it lives
}

func newConn(c *tls.Conn, raw net.Conn, peer key.Public, o options) *Conn {
	return &Conn{
		tls: c, raw: raw, peer: peer, remote: addrPort(raw.RemoteAddr()),
		counts: o.counts, receive: o.receive, stores: o.stores, opened: time.Now(),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

// options is what a Conn gets from whoever made it.
type options struct {
	counts  *Counts
	receive func(*Conn, [][]byte)
	stores  *sync.Pool
}

func newStores() *sync.Pool { return &sync.Pool{New: func() any { return new(store) }} }

// Peer returns the key that the other end has proven.
func (c *Conn) Peer() key.Public { return c.peer }

// Done is closed when the stream has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Send queues datagrams for the peer, copies of them, and returns how many it
// took: empty ones and those above MaxDatagram are left out, and of an ended
// stream all. It never blocks; what the network does not take in time is dropped,
// the oldest first.
func (c *Conn) Send(bufs [][]byte) (sent int) {
	now := time.Since(c.opened)
	dropped := 0
	c.mu.Lock()
	if c.cause != nil {
		c.mu.Unlock()
		c.drop(dropClosed, len(bufs))
		return 0
	}
	if c.queue.store == nil {
		c.queue.store = c.stores.Get().(*store)
	}
	for _, b := range bufs {
		switch {
		case len(b) == 0:
			c.drop(dropEmpty, 1)
		case len(b) > MaxDatagram:
			c.drop(dropTooBig, 1)
		default:
			dropped += c.queue.push(now, b)
			sent++
		}
	}
	c.mu.Unlock()
	c.drop(dropQueueFull, dropped)
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return sent
}

func (c *Conn) drop(why dropReason, n int) {
	if n > 0 {
		c.counts.drops[why].Add(uint64(n))
		c.dropped.Add(uint64(n))
	}
}

// Run carries datagrams until the stream ends, and then has closed it: nil when
// ctx was cancelled or Close was called, otherwise why. The receive func of
// [DialConfig] is called from it. Run is for streams of Dial; a Server runs its
// own.
func (c *Conn) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, c.Close)
	defer stop()
	if err := c.run(); err != nil {
		return fmt.Errorf("stream: %s: %w", c.remote, err)
	}
	return nil
}

func (c *Conn) run() error {
	var writer sync.WaitGroup
	writer.Go(c.write)
	c.end(c.read())
	writer.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(c.cause, errClosed) {
		return nil
	}
	return c.cause
}

// Close ends the stream at once. What is queued is lost.
func (c *Conn) Close() { c.end(errClosed) }

// end closes the stream with the first cause that somebody has.
func (c *Conn) end(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != nil {
		return
	}
	c.cause = cause
	// The writer may still be at the store's record: it is not for others.
	c.queue = queue{}
	close(c.done)
	// Not the TLS connection, whose farewell could wait for the network.
	_ = c.raw.Close()
}

// read hands over what comes until the stream ends.
func (c *Conn) read() error {
	var split splitter
	for {
		n, err := c.tls.Read(split.space())
		if n > 0 {
			bad := split.next(n, c.deliver)
			if split.empty > 0 {
				c.counts.drops[dropEmpty].Add(split.empty)
				split.empty = 0
			}
			if bad != nil {
				c.counts.ended[endFrame].Add(1)
				return bad
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return errors.New("the peer closed the stream")
		case err != nil:
			return fmt.Errorf("read: %w", err)
		}
	}
}

func (c *Conn) deliver(datagrams [][]byte) {
	bytes := 0
	for _, b := range datagrams {
		bytes += len(b)
	}
	c.heard.Store(int64(time.Since(c.opened)))
	c.got.Add(uint64(len(datagrams)))
	c.gotB.Add(uint64(bytes))
	c.counts.got.Add(uint64(len(datagrams)))
	c.counts.gotB.Add(uint64(bytes))
	c.receive(c, datagrams)
}

// write sends what is queued, as many datagrams in a record as fit.
func (c *Conn) write() {
	for {
		select {
		case <-c.wake:
		case <-c.done:
			return
		}
		for {
			record := c.next()
			if len(record) == 0 {
				break
			}
			_ = c.raw.SetWriteDeadline(time.Now().Add(writeTimeout)) // fails only when it is closed
			if _, err := c.tls.Write(record); errors.Is(err, os.ErrDeadlineExceeded) {
				c.end(fmt.Errorf("the peer took nothing for %v", writeTimeout))
				return
			} else if err != nil {
				c.end(fmt.Errorf("write: %w", err))
				return
			}
		}
	}
}

// next takes a record from the queue; an empty one when there is none, and then
// the memory is free for other streams.
func (c *Conn) next() []byte {
	since := time.Since(c.opened) - maxAge
	c.mu.Lock()
	defer c.mu.Unlock()
	record, taken, dropped := c.queue.take(since)
	c.drop(dropTooOld, dropped)
	if taken == 0 {
		if c.queue.store != nil {
			c.stores.Put(c.queue.store)
			c.queue = queue{}
		}
		return nil
	}
	bytes := len(record) - taken*lengthSize
	c.sent.Add(uint64(taken))
	c.sentB.Add(uint64(bytes))
	c.counts.sent.Add(uint64(taken))
	c.counts.sentB.Add(uint64(bytes))
	return record
}

// Status is a snapshot of a stream.
type Status struct {
	Peer        key.Public
	Remote      netip.AddrPort // of the TCP connection: the peer's, a proxy's or a load balancer's
	Opened      time.Time
	LastReceive time.Time // of a datagram; zero: none yet
	Queued      int       // datagrams that wait now
	QueuedBytes int
	Dropped     uint64 // datagrams that were not sent
	TxPackets   uint64 // datagrams handed to TLS
	TxBytes     uint64 // of datagrams
	RxPackets   uint64
	RxBytes     uint64
}

// Status returns how the stream does.
func (c *Conn) Status() Status {
	c.mu.Lock()
	queued, bytes := c.queue.count, c.queue.used-c.queue.count*headerSize
	c.mu.Unlock()
	s := Status{
		Peer: c.peer, Remote: c.remote, Opened: c.opened, Queued: queued, QueuedBytes: bytes,
		Dropped: c.dropped.Load(), TxPackets: c.sent.Load(), TxBytes: c.sentB.Load(),
		RxPackets: c.got.Load(), RxBytes: c.gotB.Load(),
	}
	if heard := c.heard.Load(); heard != 0 {
		s.LastReceive = c.opened.Add(time.Duration(heard))
	}
	return s
}
