package nat

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"corax/control/hello"
	"corax/dataplane/key"
	"corax/nat/relay"
)

// Plan is what the Gateway objects say, as far as paths are concerned. It is not
// changed after it was given away.
type Plan struct {
	Self  Self
	Peers []Peer
	// Forbidden prefixes are never probed: overlay addresses and pods.
	Forbidden []netip.Prefix
	// MaxMTU is the largest inner MTU in bytes.
	MaxMTU int
	// Claims is what every peer is told of who carries the subnets of our domain;
	// nil: nothing.
	Claims *hello.Claims
}

// Self is this node.
type Self struct {
	Gateway, Node, Version string
	Hub                    bool // it can be reached first
	Relay                  bool // it relays for others
}

// Peer is another gateway node or standby.
type Peer struct {
	Key           key.Public
	Gateway, Node string
	Hub           bool
	Relay         bool          // a hub that relays
	Cost          time.Duration // configured, of being relayed there
	Endpoint      netip.AddrPort
	TLS           string         // host:port of a hub's fallback; empty: none
	Proven        netip.AddrPort // where an earlier start of the agent reached it
	// Keep says that we keep a session all the time, and choose its path. Of two
	// hubs one does.
	Keep       bool
	SameDomain bool
	Hello      bool // its overlay address is reached through the tunnel
	// Twin says that its node changes its key, and is a peer by another key too.
	Twin bool
}

// SetPlan makes p the plan. Of several that wait only the last counts.
func (a *Agent) SetPlan(p Plan) { a.inbox.setPlan(&p) }

// apply takes in a plan.
func (a *Agent) apply(p *Plan) {
	now := time.Now()
	old := a.plan
	a.plan = *p
	next := make(map[key.Public]*peer, len(p.Peers))
	named := make(map[netip.Addr]key.Public, len(p.Peers))
	for _, x := range p.Peers {
		next[x.Key] = a.updatePeer(x)
		if x.Hello {
			named[x.Key.Overlay()] = x.Key
		}
	}
	for k, x := range a.peers {
		if next[k] == nil {
			a.dropPeer(x)
		}
	}
	a.peers = next
	a.named.Store(&named)
	a.overhear(next)
	a.hubs = a.hubs[:0]
	for _, x := range p.Peers {
		if x.Hub && !x.SameDomain && (x.Keep || p.Self.Hub) {
			a.hubs = append(a.hubs, next[x.Key])
		}
	}
	slices.SortStableFunc(a.hubs, func(x, y *peer) int {
		if x.Cost != y.Cost {
			return int(x.Cost - y.Cost)
		}
		return compareKeys(x.Key, y.Key)
	})
	if old.Self != p.Self {
		a.sayWho()
	}
	if p.Claims != nil {
		a.check("claims", a.hello.SetClaims(*p.Claims))
	}
	a.book.SetRelaying(p.Self.Hub && p.Self.Relay)
	known := maps.Clone(named)
	known[a.self.Overlay()] = a.self
	a.book.SetAllowed(now, func(asking, peer key.Public) bool {
		return known[asking.Overlay()] == asking && known[peer.Overlay()] == peer
	})
	a.hello.Renamed()
	a.isHub.Store(p.Self.Hub)
	a.server.want(p.Self.Hub)
	a.server.recheck()
	a.refreshLocal()
	for _, h := range a.hubs {
		if h.Keep {
			a.machineOf(h)
			a.want(h)
		}
	}
	if !slices.Equal(a.servers(), a.discovery.asked) {
		a.discover("the servers changed")
	}
	a.refreshSessions(now)
	a.reask()
}

// sayWho tells everybody who we are.
func (a *Agent) sayWho() {
	s := a.plan.Self
	a.check("self", a.hello.SetSelf(hello.Self{
		Version: s.Version, Gateway: s.Gateway, Node: s.Node, Hub: s.Hub, Draining: a.draining,
	}))
}

// updatePeer makes or changes a peer.
func (a *Agent) updatePeer(x Peer) *peer {
	p := a.peers[x.Key]
	if p == nil {
		return &peer{Peer: x}
	}
	old := p.Peer
	if x.SameDomain && !old.SameDomain {
		// Inside the domain it is reached as the plan says; nothing else counts.
		a.dropPeer(p)
		a.tun().SetPath(x.Key, Path{To: x.Endpoint}, false)
		return &peer{Peer: x}
	}
	p.Peer = x
	if old.Keep != x.Keep {
		if p.asking = p.active() && !x.Keep; !p.asking {
			a.book.Ask(p.Key, nil)
		}
	}
	if p.machine != nil && (old.Endpoint != x.Endpoint || old.Hub != x.Hub) {
		a.remoteChanged(p, false)
	}
	if old.TLS != x.TLS || !x.Keep {
		a.closeStream(p)
	}
	return p
}

func (a *Agent) dropPeer(p *peer) {
	a.dropMachine(p)
	a.setMTU(p, 0)
	a.closeStream(p)
	a.book.Ask(p.Key, nil)
	a.book.Gone(time.Now(), p.Key)
	a.hello.Forget(p.Key)
	a.claimed(p, nil)
	delete(a.byProbeID, p.probeID)
}

// reask says anew to the hubs whom we want.
func (a *Agent) reask() {
	for _, p := range a.peers {
		if p.asking {
			a.ask(p)
		}
	}
}

// ask wants a label to p at every hub that we keep a session with and that
// relays.
func (a *Agent) ask(p *peer) {
	p.asking = true
	var at []relay.Ask
	for _, h := range a.hubs {
		if h.Relay && h != p {
			at = append(at, relay.Ask{Hub: h.Key})
		}
		if len(at) == maxAsked {
			break
		}
	}
	a.book.Ask(p.Key, at)
}

// maxAsked is at how many hubs a peer is asked for.
const maxAsked = 4

func compareKeys(x, y key.Public) int { return slices.Compare(x[:], y[:]) }
