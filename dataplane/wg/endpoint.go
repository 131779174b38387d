package wg

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"corax/dataplane/key"
)

var (
	_ conn.Endpoint = (*peer)(nil)
	_ conn.Endpoint = (*source)(nil)
)

// peer is one WireGuard peer and, as conn.Endpoint, wherever it is reached now.
// wireguard-go holds one peer object per peer from its creation on.
type peer struct {
	key   key.Public
	mac1  macKey // of messages to it
	table *table

	path   atomic.Pointer[path]   // nil: no path; written under table.mu
	spare  atomic.Pointer[source] // the last source made, to be used again
	from   atomic.Pointer[way]    // where it last proved to send from; nil: from its path, or nobody knows
	heard  atomic.Int64           // as path.heard, from anywhere
	wanted atomic.Int64           // when Config.Wanted was last told, by gate.now
	told   atomic.Int64           // when Config.Proven was last told, by gate.now
	toldBy atomic.Pointer[way]    // of which way
	remote atomic.Uint32          // receiver index in the last data message to it

	// What gate knows: how many data packets left wireguard-go, ever, and that
	// an initiation did since the last new session.
	sent      atomic.Uint64
	initiated atomic.Bool
	flow      flow

	received    atomic.Uint64 // data packets, ever
	initiations atomic.Uint64 // that wireguard-go made, ever
	starved     atomic.Uint64 // as in dataplane.PeerStatus

	mu        sync.Mutex // guards the four that follow
	kept      kept
	pending   pending
	answering answering
	response  response

	queued int // datagrams in the feed; guarded by feed.mu

	indices ring // guarded by table.mu
	seen    seen // guarded by Device.statusMu
}

// kept is a handshake message that waits for a path.
type kept struct {
	n   int
	at  time.Time
	msg [sizeInitiation]byte
}

// ClearSrc forgets our own address of the path: wireguard-go asks for it when a
// handshake stays unanswered, since that address may be gone.
func (p *peer) ClearSrc() { p.table.clearLocal(p) }

// SrcToString returns our own address of the path.
func (p *peer) SrcToString() string { return addrString(p.SrcIP()) }

// DstToString returns the path as ip:port: the hub's for a relay, 0.0.0.0:0 for a
// stream or no path. Readers of the user API accept nothing else.
func (p *peer) DstToString() string { return p.dst().String() }

// DstToBytes returns the path's address in binary.
func (p *peer) DstToBytes() []byte { return addrBytes(p.dst()) }

// DstIP returns the path's IP address.
func (p *peer) DstIP() netip.Addr { return p.dst().Addr() }

// SrcIP returns our own address of the path; the zero Addr when unknown.
func (p *peer) SrcIP() netip.Addr {
	if w := p.path.Load(); w != nil {
		return w.local
	}
	return netip.Addr{}
}

// sendsFrom reports whether o is where p's relay frames may come from: its path,
// or where p proved to send from while that path was pinned. Each end of a session
// chooses for itself, so the two may differ for good: one way by IPv4, the other
// by IPv6.
func (p *peer) sendsFrom(o *way) bool {
	w := p.path.Load()
	if w == nil || w.via != nil {
		return false
	}
	if w.same(o) {
		return true
	}
	from := p.from.Load()
	return from != nil && from.same(o)
}

func (p *peer) dst() netip.AddrPort {
	w := p.path.Load()
	if w != nil && w.via != nil {
		w = w.via.path.Load()
	}
	if w == nil || !w.direct() {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	}
	return w.to
}

// source is where a datagram came from that did not come over its peer's path,
// and of every handshake message: the cookie MAC and the rate limiter of
// wireguard-go need the true address.
type source struct {
	way
	at int64 // arrival in Unix nanoseconds; zero: set by the operator
	// peer is whose datagram it claims to be; nil while nobody knows, which is
	// never so for a stream or a relay.
	peer atomic.Pointer[peer]
	// base is the peer's path at the arrival, when named is set: a path that
	// was chosen since wins over this source.
	base  *path
	named bool
	// used is set by the first send that names or proves the source.
	used atomic.Bool
	// tell is set while Config.Proven shall hear of it.
	tell atomic.Bool
}

func newSource(w way, at int64, p *peer) *source {
	s := &source{way: w, at: at}
	s.tell.Store(true)
	if p != nil {
		s.peer.Store(p)
		s.base, s.named = p.path.Load(), true
	}
	return s
}

// current returns the peer when its path, not this source, is where packets go.
func (s *source) current() *peer {
	p := s.peer.Load()
	if p == nil || !s.used.Load() && s.direct() && !(s.named && s.base != p.path.Load()) {
		return nil
	}
	return p
}

// addr is the address by which wireguard-go knows a source: that of a relay or
// a stream says nothing of who sent, so there it is the peer's overlay address.
func (s *source) addr() netip.AddrPort {
	if s.direct() {
		return s.to
	}
	return netip.AddrPortFrom(s.peer.Load().key.Overlay(), 0)
}

// ClearSrc forgets our own address of the peer's path.
func (s *source) ClearSrc() {
	if p := s.peer.Load(); p != nil {
		p.ClearSrc()
	}
}

// SrcToString returns our own address that the datagram was sent to.
func (s *source) SrcToString() string { return addrString(s.local) }

// DstToString returns where packets go now, as ip:port.
func (s *source) DstToString() string {
	if p := s.current(); p != nil {
		return p.DstToString()
	}
	return s.to.String()
}

// DstToBytes returns the true source in binary.
func (s *source) DstToBytes() []byte { return addrBytes(s.addr()) }

// DstIP returns the true source's IP address.
func (s *source) DstIP() netip.Addr { return s.addr().Addr() }

// SrcIP returns our own address that the datagram was sent to.
func (s *source) SrcIP() netip.Addr { return s.local }

func addrString(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func addrBytes(a netip.AddrPort) []byte {
	b := a.Addr().AsSlice()
	return append(b, byte(a.Port()>>8), byte(a.Port()))
}
