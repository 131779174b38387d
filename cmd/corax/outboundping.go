package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"corax/dataplane/key"
	"corax/dataplane/netstack"
	"corax/proxy/outbound"
)

const (
	// pingSeqLen is what a message of a ping connection has before its payload.
	pingSeqLen = 2
	// pingPatience is how long an answer of an agent may take.
	pingPatience = 10 * time.Second
	// maxAgentPings bounds those of one connection that wait.
	maxAgentPings = 32
)

// networkPings is a way into the tunnel that carries pings.
type networkPings interface {
	DialPing(ctx context.Context, to netip.Addr) (net.Conn, error)
}

// pings is how programs of this node ping: agents from our own overlay address, what is
// behind them by a network.
func (a *agent) pings(n outbound.Network) func(context.Context, netip.Addr) (net.Conn, error) {
	return func(ctx context.Context, to netip.Addr) (net.Conn, error) {
		if key.OverlayPrefix.Contains(to) {
			ping := a.stack.Ping
			if to == a.public.Overlay() {
				ping = pingSelf
			}
			return newAgentPings(ping, to), nil
		}
		p, ok := n.(networkPings)
		if !ok {
			return nil, syscall.EACCES
		}
		return p.DialPing(ctx, to)
	}
}

// DialPing is [netstack.Site.DialPing], from the source of programs.
func (n siteNetwork) DialPing(ctx context.Context, to netip.Addr) (net.Conn, error) {
	from, err := n.from(to.Is6())
	if err != nil {
		return nil, err
	}
	return n.site.DialPing(ctx, from, to)
}

// DialPing pings by the kernel, whose routes lead into the TUN.
func (hostNetwork) DialPing(_ context.Context, to netip.Addr) (net.Conn, error) {
	c, err := dialHostPing(to)
	if err != nil {
		return nil, err
	}
	return &hostPings{Conn: c, v4: to.Is4()}, nil
}

// hostPings is an ICMP socket of the kernel, which sets identifier and checksum.
type hostPings struct {
	net.Conn
	v4 bool
}

// Write sends an echo request.
func (c *hostPings) Write(b []byte) (int, error) {
	if len(b) < pingSeqLen {
		return 0, syscall.EINVAL
	}
	m := make([]byte, 6, 6+len(b))
	m[0] = 128
	if c.v4 {
		m[0] = 8
	}
	if _, err := c.Conn.Write(append(m, b...)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Read returns the next answer.
func (c *hostPings) Read(b []byte) (int, error) {
	m := make([]byte, 6+len(b))
	kind := byte(129)
	if c.v4 {
		kind = 0
	}
	for {
		n, err := c.Conn.Read(m)
		if err != nil {
			return 0, err
		}
		if n >= 6+pingSeqLen && m[0] == kind {
			return copy(b, m[6:n]), nil
		}
	}
}

// agentPings pings an agent's overlay address. Its methods are those of a connection;
// Close joins what waits.
type agentPings struct {
	to      netip.Addr
	ping    overlayPing
	ctx     context.Context
	end     context.CancelFunc
	wg      sync.WaitGroup
	places  chan struct{}
	answers chan agentAnswer

	mu     sync.Mutex
	closed bool
	late   time.Time
	moved  chan struct{} // closed when late changes
}

// agentAnswer is an answer, or an error.
type agentAnswer struct {
	message []byte
	err     error
}

// overlayPing sends one echo request to an overlay address, and waits for the answer.
type overlayPing func(ctx context.Context, to netip.Addr, size int) (time.Duration, error)

// pingSelf answers for this agent: nothing on the way leads back to it.
func pingSelf(context.Context, netip.Addr, int) (time.Duration, error) { return 0, nil }

func newAgentPings(ping overlayPing, to netip.Addr) *agentPings {
	c := &agentPings{
		to: to, ping: ping, places: make(chan struct{}, maxAgentPings), answers: make(chan agentAnswer, maxAgentPings),
		moved: make(chan struct{}),
	}
	c.ctx, c.end = context.WithCancel(context.Background())
	return c
}

// Write sends an echo request. One that is too many is lost.
func (c *agentPings) Write(b []byte) (int, error) {
	if len(b) < pingSeqLen {
		return 0, syscall.EINVAL
	}
	m := append([]byte(nil), b...)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	select {
	case c.places <- struct{}{}:
		c.wg.Go(func() { c.wait(m) })
	default:
	}
	return len(b), nil
}

// wait takes the answer to one request: nothing in it can be different from what was
// sent, since the stack compares it.
func (c *agentPings) wait(m []byte) {
	defer func() { <-c.places }()
	ctx, cancel := context.WithTimeout(c.ctx, pingPatience)
	defer cancel()
	a := agentAnswer{message: m}
	_, err := c.ping(ctx, c.to, len(m)-pingSeqLen)
	big := &netstack.TooBigError{}
	switch {
	case err == nil:
	case errors.Is(err, netstack.ErrUnreachable):
		a.err = syscall.EHOSTUNREACH
	case errors.As(err, &big):
		return // no way for that size: as one that is lost
	case ctx.Err() != nil:
		return
	default:
		a.err = err
	}
	select {
	case c.answers <- a:
	default:
	}
}

// Read returns the next answer.
func (c *agentPings) Read(b []byte) (int, error) {
	for {
		c.mu.Lock()
		late, moved := c.late, c.moved
		c.mu.Unlock()
		var timer <-chan time.Time
		if !late.IsZero() {
			left := time.Until(late)
			if left <= 0 {
				return 0, os.ErrDeadlineExceeded
			}
			timer = time.After(left)
		}
		select {
		case a := <-c.answers:
			if a.err != nil {
				return 0, a.err
			}
			return copy(b, a.message), nil
		case <-timer:
		case <-moved:
		case <-c.ctx.Done():
			return 0, net.ErrClosed
		}
	}
}

// Close ends what waits.
func (c *agentPings) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end()
	c.wg.Wait()
	return nil
}

// LocalAddr returns an address of nobody.
func (*agentPings) LocalAddr() net.Addr { return &net.IPAddr{} }

// RemoteAddr returns whom it pings.
func (c *agentPings) RemoteAddr() net.Addr { return &net.IPAddr{IP: c.to.AsSlice()} }

// SetDeadline implements [net.Conn].
func (c *agentPings) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements [net.Conn].
func (c *agentPings) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.late = t
	close(c.moved)
	c.moved = make(chan struct{})
	return nil
}

// SetWriteDeadline does nothing: Write does not block.
func (*agentPings) SetWriteDeadline(time.Time) error { return nil }
