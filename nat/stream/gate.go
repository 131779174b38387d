package stream

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// limits bound what strangers can make a server do.
type limits struct {
	handshakes  int     // that go on at the same time
	perSource   int     // connections of one source, streams included
	sourceRate  float64 // handshakes a second of one source
	sourceBurst float64
	rate, burst float64 // handshakes a second of all sources
	sources     int     // that are remembered
}

// defaultLimits suit a hub behind a load balancer too, where all edges may have
// one source. The rate is what a small box can do beside its work (one handshake
// is about a millisecond there), and brings 1,000 edges back in 20 s.
func defaultLimits() limits {
	return limits{
		handshakes: 128, perSource: 512,
		sourceRate: 20, sourceBurst: 64, rate: 50, burst: 100,
		sources: 4096,
	}
}

// A gate decides which connections a server looks at: bounded in all, per source
// address (v4) or /64 (v6), and in handshakes a second. When too many handshakes
// are under way the oldest makes room: those who only connect and say nothing
// keep nobody out.
type gate struct {
	limits limits

	mu      sync.Mutex
	bucket  bucket
	sources map[netip.Prefix]*source
	pending []*ticket // handshakes, oldest first
	all     map[*ticket]struct{}
}

type source struct {
	bucket bucket
	open   int
}

// A ticket is one connection that a gate has let in.
type ticket struct {
	conn    net.Conn
	from    netip.Prefix
	evicted bool // guarded by the gate's mu
}

func newGate(l limits) *gate {
	return &gate{limits: l, sources: make(map[netip.Prefix]*source), all: make(map[*ticket]struct{})}
}

// enter lets a connection in, or says why not; the caller closes it then.
func (g *gate) enter(now time.Time, c net.Conn) (*ticket, refusal, bool) {
	t := &ticket{conn: c, from: sourceOf(c.RemoteAddr())}
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.sources[t.from]
	// The source first: a flood from one address takes nothing from the others.
	if s != nil && (s.open >= g.limits.perSource || !s.bucket.take(now, g.limits.sourceRate, g.limits.sourceBurst)) {
		return nil, refuseSource, false
	}
	if !g.bucket.take(now, g.limits.rate, g.limits.burst) {
		return nil, refuseRate, false
	}
	if s == nil {
		if s = g.remember(now, t.from); s == nil {
			return nil, refuseSource, false
		}
		s.bucket.take(now, g.limits.sourceRate, g.limits.sourceBurst)
	}
	s.open++
	if len(g.pending) >= g.limits.handshakes {
		g.evict()
	}
	g.pending = append(g.pending, t)
	g.all[t] = struct{}{}
	return t, 0, true
}

// remember makes room for a new source by forgetting those that could start
// afresh anyway. The rate of all sources keeps the table from filling up.
func (g *gate) remember(now time.Time, p netip.Prefix) *source {
	if len(g.sources) >= g.limits.sources {
		for p, s := range g.sources {
			if s.open == 0 && s.bucket.full(now, g.limits.sourceRate) {
				delete(g.sources, p)
			}
		}
	}
	if len(g.sources) >= g.limits.sources {
		return nil
	}
	s := &source{}
	g.sources[p] = s
	return s
}

func (g *gate) evict() {
	t := g.pending[0]
	t.evicted = true
	g.settleLocked(t)
	_ = t.conn.Close()
}

// settle says that a handshake is over, and reports whether it had been evicted.
func (g *gate) settle(t *ticket) (evicted bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.settleLocked(t)
	return t.evicted
}

func (g *gate) settleLocked(t *ticket) {
	for i, p := range g.pending {
		if p == t {
			g.pending = append(g.pending[:i], g.pending[i+1:]...)
			return
		}
	}
}

// leave says that the connection is closed.
func (g *gate) leave(t *ticket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.settleLocked(t)
	delete(g.all, t)
	g.sources[t.from].open--
}

// closeAll closes every connection that is inside.
func (g *gate) closeAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for t := range g.all {
		_ = t.conn.Close()
	}
}

// bucket is a token bucket; the zero value is full.
type bucket struct {
	spent float64
	last  time.Time
}

func (b *bucket) take(now time.Time, rate, burst float64) bool {
	b.refill(now, rate)
	if b.spent+1 > burst {
		return false
	}
	b.spent++
	return true
}

func (b *bucket) full(now time.Time, rate float64) bool {
	b.refill(now, rate)
	return b.spent == 0
}

func (b *bucket) refill(now time.Time, rate float64) {
	b.spent = max(0, b.spent-now.Sub(b.last).Seconds()*rate)
	b.last = now
}

// sourceOf returns what counts as one source: an IPv4 address, an IPv6 /64.
func sourceOf(a net.Addr) netip.Prefix {
	addr := addrPort(a).Addr()
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // no IP: all of these are one source
	}
	return p
}

// addrPort returns the zero AddrPort for what is no TCP address.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}
