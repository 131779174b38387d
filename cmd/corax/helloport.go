package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"corax/control/hello"
	"corax/dataplane"
)

// helloWaiting bounds the hellos that wait for the tunnel's agent.
const helloWaiting = 256

// helloPort is the hello port of our overlay address. What nodes of this domain
// say to each other is taken here, on plain nodes too; everything else is for the
// tunnel, which comes and goes.
type helloPort struct {
	conn  net.PacketConn
	codec *hello.DomainCodec
	// take gets what a node of this domain says; it must not block.
	take func(from netip.Addr, d hello.Domain)

	dropped, malformed atomic.Uint64

	mu    sync.Mutex
	guest *guestPort // nil: the tunnel is closed
}

// Run receives until ctx ends, and closes the port.
func (p *helloPort) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = p.conn.Close() })
	defer stop()
	buf := make([]byte, hello.MaxMessage+1)
	for {
		n, from, err := p.conn.ReadFrom(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		p.datagram(buf[:n], from)
	}
}

func (p *helloPort) datagram(b []byte, from net.Addr) {
	d, ours, err := p.codec.Decode(b)
	switch u, ok := from.(*net.UDPAddr); {
	case !ours:
		p.pass(b, from)
	case err != nil || !ok || u.Port != hello.Port:
		p.malformed.Add(1)
	default:
		p.take(u.AddrPort().Addr(), d)
	}
}

// pass hands a datagram to the tunnel's agent.
func (p *helloPort) pass(b []byte, from net.Addr) {
	p.mu.Lock()
	g := p.guest
	p.mu.Unlock()
	if g == nil {
		p.dropped.Add(1)
		return
	}
	select {
	case g.packets <- guestPacket{append([]byte(nil), b...), from}:
	default:
		p.dropped.Add(1)
	}
}

// say sends to a node of this domain, best effort.
func (p *helloPort) say(to netip.Addr, d hello.Domain) error {
	b, err := p.codec.Encode(d)
	if err == nil {
		_, err = p.conn.WriteTo(b, &net.UDPAddr{IP: to.AsSlice(), Port: hello.Port})
	}
	return err
}

// open returns the tunnel's end of the port. Closing it leaves the port open.
func (p *helloPort) open() net.PacketConn {
	g := &guestPort{port: p, packets: make(chan guestPacket, helloWaiting), closed: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.guest = g
	return g
}

func (p *helloPort) counters() []dataplane.Counter {
	return []dataplane.Counter{
		{Name: "hello_drop_total", Reason: "no_receiver", Value: p.dropped.Load()},
		{Name: "hello_drop_total", Reason: "malformed", Value: p.malformed.Load()},
	}
}

// guestPort is a net.PacketConn on a helloPort.
type guestPort struct {
	port    *helloPort
	packets chan guestPacket
	closed  chan struct{}
	once    sync.Once
}

type guestPacket struct {
	data []byte
	from net.Addr
}

var _ net.PacketConn = (*guestPort)(nil)

func (g *guestPort) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case x := <-g.packets:
		return copy(b, x.data), x.from, nil
	case <-g.closed:
		return 0, nil, net.ErrClosed
	}
}

func (g *guestPort) WriteTo(b []byte, to net.Addr) (int, error) { return g.port.conn.WriteTo(b, to) }

func (g *guestPort) Close() error {
	g.once.Do(func() {
		g.port.mu.Lock()
		if g.port.guest == g {
			g.port.guest = nil
		}
		g.port.mu.Unlock()
		close(g.closed)
	})
	return nil
}

func (g *guestPort) LocalAddr() net.Addr              { return g.port.conn.LocalAddr() }
func (g *guestPort) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (g *guestPort) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (g *guestPort) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
