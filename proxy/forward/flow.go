package forward

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"corax/dataplane/netstack"
	"corax/proxy/datagram"
)

// socket is what a flow needs of a connected datagram socket.
type socket interface {
	SyscallConn() (syscall.RawConn, error)
	SetReadDeadline(t time.Time) error
	Close() error
}

// ends names a flow. Of pings the port of from is their identifier.
type ends struct{ from, to netip.AddrPort }

// flow is one connected socket, and what it stands for. Its goroutine reads from
// the socket; whoever receives packets of the tunnel writes to it.
type flow struct {
	ends
	f      *Forwarder
	sock   socket
	raw    syscall.RawConn
	quote  netstack.Quote // of the first packet
	reply  func(payload []byte) error
	idle   func(twoWay bool) time.Duration
	last   atomic.Int64 // when something moved, Unix nanoseconds
	twoWay atomic.Bool
}

// flows are all of one kind.
type flows struct {
	places places

	mu sync.Mutex
	m  map[ends]*flow
}

func (t *flows) init(most int) {
	t.places.max = most
	t.m = make(map[ends]*flow)
}

func (t *flows) open() int { return t.places.open() }

func (t *flows) get(e ends) *flow {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.m[e]
}

// put adds fl, unless somebody was faster: then that one is returned.
func (t *flows) put(fl *flow) *flow {
	t.mu.Lock()
	defer t.mu.Unlock()
	if other := t.m[fl.ends]; other != nil {
		return other
	}
	t.m[fl.ends] = fl
	return fl
}

func (t *flows) remove(e ends) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.m, e)
}

// start makes a flow run; its place is given back when it ends. It returns the flow
// to write to, nil when there is none.
func (t *flows) start(site *netstack.Site, fl *flow) *flow {
	raw, err := fl.sock.SyscallConn()
	if err != nil {
		_ = fl.sock.Close()
		t.places.release(fl.from.Addr())
		return nil
	}
	fl.raw = raw
	fl.last.Store(time.Now().UnixNano())
	if other := t.put(fl); other != fl {
		_ = fl.sock.Close()
		t.places.release(fl.from.Addr())
		return other
	}
	end := func() {
		t.remove(fl.ends)
		_ = fl.sock.Close()
		t.places.release(fl.from.Addr())
	}
	if !site.Go(func(ctx context.Context) { defer end(); fl.run(ctx, site) }) {
		end()
		return nil
	}
	return fl
}

// run reads answers until the flow is idle, the destination is gone, or ctx ends.
func (fl *flow) run(ctx context.Context, site *netstack.Site) {
	stop := context.AfterFunc(ctx, func() { _ = fl.sock.Close() })
	defer stop()
	for {
		last := time.Unix(0, fl.last.Load())
		rest := time.Until(last.Add(fl.idle(fl.twoWay.Load())))
		if rest <= 0 {
			return
		}
		_ = fl.sock.SetReadDeadline(time.Now().Add(rest))
		err := fl.read()
		switch {
		case err == nil:
			fl.twoWay.Store(true)
			fl.last.Store(time.Now().UnixNano())
		case errors.Is(err, os.ErrDeadlineExceeded): // perhaps something was sent since
		case fl.failed(site, err):
		default:
			return
		}
	}
}

// failed tells the other end of an error of the socket, and reports whether the
// flow goes on.
func (fl *flow) failed(site *netstack.Site, err error) bool {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		fl.f.count.refused.Add(1)
		site.Reject(fl.quote, netstack.PortUnreachable)
		return false
	case errors.Is(err, syscall.EMSGSIZE):
		fl.f.count.datagrams.Add(1)
		return true
	case unreachable(err):
		fl.f.count.noRoute.Add(1)
		site.Reject(fl.quote, netstack.HostUnreachable)
		return false
	default:
		return false
	}
}

// read waits for one datagram and passes it on. A buffer is only held while there
// is one: idle flows are many.
func (fl *flow) read() error {
	var buf *datagram.Buffer
	var n int
	var err error
	defer func() { fl.f.buffers.Put(buf) }()
	if e := fl.raw.Read(func(fd uintptr) bool {
		if buf == nil {
			buf = fl.f.buffers.Get()
		}
		for {
			if n, err = syscall.Read(int(fd), buf.Payload()); !errors.Is(err, syscall.EINTR) {
				break
			}
		}
		if errors.Is(err, syscall.EAGAIN) {
			fl.f.buffers.Put(buf)
			buf = nil
			return false
		}
		return true
	}); e != nil {
		return e
	}
	if err != nil {
		return err
	}
	fl.f.count.down.Add(uint64(n))
	if fl.reply(buf.Payload()[:n]) != nil {
		fl.f.count.datagrams.Add(1)
	}
	return nil
}

// write sends without waiting: what the socket has no room for is lost, as on any
// link.
func (fl *flow) write(b []byte) error {
	var err error
	if e := fl.raw.Write(func(fd uintptr) bool {
		_, err = syscall.Write(int(fd), b)
		return true
	}); e != nil {
		return e
	}
	if err == nil {
		fl.last.Store(time.Now().UnixNano())
		fl.f.count.up.Add(uint64(len(b)))
	}
	return err
}
