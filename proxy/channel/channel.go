package channel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"corax/control"
	"corax/proxy"
)

const (
	// dialWithin bounds a dial in all.
	dialWithin = 20 * time.Second
	// answerWithin is how long an edge may take with its answer: a little longer
	// than it gives the node.
	answerWithin = 12 * time.Second
	// nextAfter is when the next gateway node is tried beside one that is silent:
	// a path that has to be looked for first takes that long.
	nextAfter = time.Second
	// silentAfter is when a gateway node of which nothing at all has come since it was
	// dialled is given up. A path that works, however slow, has brought something by
	// then: WireGuard's handshake, or an answer of TCP that came late.
	silentAfter = 5 * time.Second
	// anewEvery is when another connection is dialled beside one that gets no answer,
	// up to mostDials: TCP alone asks after 1, 3, 7 and 15 s, so that it would learn up to
	// eight seconds late of a path that works again.
	anewEvery = 2 * time.Second
	mostDials = 4
	// avoidFor is how long a gateway node that failed is tried last.
	avoidFor = 30 * time.Second
)

// Config says how connections are opened.
type Config struct {
	// Overlay opens one from our overlay address. It must have CloseWrite.
	Overlay func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	// Heard says when anything came from a gateway node last; zero: never. nil: nobody
	// knows, and each may take the whole time of a dial.
	Heard func(via netip.Addr) time.Time
	// Dial opens one to a node of the own domain; nil means the host's own TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Counters gets the time that the stages take; nil means ones of its own.
	Counters *proxy.Counters
}

// Channel dials nodes by name. Its methods may be called from several goroutines
// at once.
type Channel struct {
	cfg   Config
	nodes atomic.Pointer[map[string]control.ProxyNode]

	mu     sync.Mutex
	failed map[netip.Addr]time.Time // gateway nodes, until when they are tried last
	silent map[netip.Addr]time.Time // likewise, unless they are heard again: since when
	open   map[*Conn]bool           // over the overlay
}

var _ proxy.Dialer = (*Channel)(nil)

// New makes a channel that knows no node until Apply was called.
func New(cfg Config) (*Channel, error) {
	if cfg.Overlay == nil {
		return nil, errors.New("proxy channel: no way into the overlay")
	}
	if cfg.Dial == nil {
		d := &net.Dialer{KeepAliveConfig: proxy.Keepalive()}
		cfg.Dial = d.DialContext
	}
	if cfg.Counters == nil {
		cfg.Counters = new(proxy.Counters)
	}
	c := &Channel{cfg: cfg, failed: map[netip.Addr]time.Time{}, silent: map[netip.Addr]time.Time{}, open: map[*Conn]bool{}}
	c.Apply(nil)
	return c, nil
}

// Apply makes nodes the ones that can be dialled. It keeps no reference to the
// slice. Connections that are open stay.
func (c *Channel) Apply(nodes []control.ProxyNode) {
	table := make(map[string]control.ProxyNode, len(nodes))
	gateways := map[netip.Addr]bool{}
	for _, n := range nodes {
		table[n.Name] = n
		for _, a := range n.Via {
			gateways[a] = true
		}
	}
	c.nodes.Store(&table)
	c.mu.Lock()
	defer c.mu.Unlock()
	for a := range c.failed {
		if !gateways[a] {
			delete(c.failed, a)
		}
	}
	for a := range c.silent {
		if !gateways[a] {
			delete(c.silent, a)
		}
	}
}

// Reach says which gateway nodes can still be reached, by overlay address, whether
// they are to be asked or not. Connections over any other are broken off: nothing
// comes over them any more.
func (c *Channel) Reach(peers []netip.Addr) {
	known := make(map[netip.Addr]bool, len(peers))
	for _, a := range peers {
		known[a] = true
	}
	var gone []*Conn
	c.mu.Lock()
	for conn := range c.open {
		if !known[conn.Via] {
			gone = append(gone, conn)
		}
	}
	c.mu.Unlock()
	for _, conn := range gone {
		_ = conn.SetLinger(0)
		_ = conn.Close()
	}
}

// keep notes a connection over the overlay, until it is closed.
func (c *Channel) keep(conn *Conn) *Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	conn.channel = c
	c.open[conn] = true
	return conn
}

// Conn is a connection to a node.
type Conn struct {
	proxy.CloseWriter
	// Via is the overlay address of the gateway node that dialled the node; zero:
	// it was dialled plainly.
	Via netip.Addr

	channel *Channel // nil: dialled plainly
}

// Close implements [net.Conn].
func (c *Conn) Close() error {
	if h := c.channel; h != nil {
		h.mu.Lock()
		delete(h.open, c)
		h.mu.Unlock()
	}
	return c.CloseWriter.Close()
}

// NetConn returns the connection below.
func (c *Conn) NetConn() net.Conn { return c.CloseWriter }

// SetLinger is that of [net.TCPConn], for zero and less.
func (c *Conn) SetLinger(sec int) error {
	if l, ok := c.CloseWriter.(interface{ SetLinger(sec int) error }); ok {
		return l.SetLinger(sec)
	}
	return errors.ErrUnsupported
}

// Dial opens a connection to a port of a node: a [*Conn]. It takes 20 seconds at
// most, or five where nothing at all comes from any gateway node. Its error is a
// [*proxy.Refusal].
func (c *Channel) Dial(ctx context.Context, t proxy.Target) (net.Conn, error) {
	n, ok := (*c.nodes.Load())[t.Node]
	switch {
	case !ok:
		return nil, proxy.Refuse(proxy.CodeUnknownNode, fmt.Sprintf("no node %s takes part in proxy mode", t.Node))
	case !slices.Contains(n.Ports, t.Port):
		return nil, proxy.Refuse(proxy.CodePort, fmt.Sprintf("port %d of node %s is not one of %v, which may be dialled", t.Port, t.Node, n.Ports))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, dialWithin, fmt.Errorf("no answer within %v", dialWithin))
	defer cancel()
	var conn *Conn
	var r *proxy.Refusal
	if n.Own {
		conn, r = c.plain(ctx, t, n.IP)
	} else {
		conn, r = c.over(ctx, t, n)
	}
	if r != nil {
		return nil, r
	}
	return conn, nil
}

// plain dials a node of the own domain.
func (c *Channel) plain(ctx context.Context, t proxy.Target, ip netip.Addr) (*Conn, *proxy.Refusal) {
	if err := proxy.CheckAddr(ip); err != nil {
		return nil, &proxy.Refusal{Code: proxy.CodeDial, Text: fmt.Sprintf("node %s is not dialled: %v", t.Node, err), Err: err}
	}
	started := time.Now()
	conn, err := c.cfg.Dial(ctx, "tcp", netip.AddrPortFrom(ip, t.Port).String())
	if err == nil {
		if h, ok := conn.(proxy.CloseWriter); ok {
			c.cfg.Counters.Took(proxy.StageNode, time.Since(started))
			return &Conn{CloseWriter: h}, nil
		}
		_ = conn.Close()
		err = errors.New("the connection cannot be half closed")
	}
	cause := err
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Err != nil {
		cause = e.Err
	}
	if ctx.Err() != nil {
		cause = context.Cause(ctx)
	}
	return nil, &proxy.Refusal{
		Code: proxy.CodeDial, Err: err,
		Text: fmt.Sprintf("dial node %s at %s, port %d: %v", t.Node, ip, t.Port, cause),
	}
}

// order returns the gateway nodes of a node: those that failed lately, or are silent,
// come last.
func (c *Channel) order(via []netip.Addr, now time.Time) []netip.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	sorted := slices.Clone(via)
	sort.SliceStable(sorted, func(i, j int) bool {
		// Of several that failed the one that did so first comes first.
		return c.until(sorted[i], now).Before(c.until(sorted[j], now))
	})
	return sorted
}

func (c *Channel) until(a netip.Addr, now time.Time) time.Time {
	if t := c.failed[a]; t.After(now) {
		return t
	}
	since, ok := c.silent[a]
	if t := since.Add(avoidFor); ok && t.After(now) && (c.cfg.Heard == nil || !c.cfg.Heard(a).After(since)) {
		return t
	}
	return time.Time{}
}

// doubt notes that another gateway node answered sooner than one that was dialled at
// began. If nothing came from that since then it may be dead: it is asked last until
// something does. One that is only slow is not.
func (c *Channel) doubt(a netip.Addr, began time.Time) {
	if c.cfg.Heard != nil && !c.cfg.Heard(a).Before(began) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silent[a] = time.Now()
}

// judge notes whether a gateway node serves.
func (c *Channel) judge(a netip.Addr, serves bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if serves {
		delete(c.failed, a)
		delete(c.silent, a)
	} else if !c.failed[a].After(time.Now()) {
		c.failed[a] = time.Now().Add(avoidFor)
	}
}
