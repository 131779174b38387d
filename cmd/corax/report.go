package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"time"

	"corax/control"
	"corax/dataplane"
	"corax/dataplane/key"
)

const (
	// pingSize is the payload of an echo request, in bytes.
	pingSize = 32
	// pathFresh is how long a path counts as up after the last packet from it:
	// one keepalive interval and some.
	pathFresh = 30 * time.Second
)

// status is what the agent says of itself now.
func (a *agent) status() Status {
	v := a.view.Load()
	self := v.plan.Config.Self
	s := Status{
		Node:           a.cfg.NodeName,
		Gateway:        v.plan.Gateway,
		Role:           Role(v.plan.Role.String()),
		Datapath:       string(a.datapath),
		DatapathReason: a.datapathReason,
		PublicKey:      a.public,
		OverlayAddress: a.public.Overlay(),
		MTU:            self.MTU,
		Version:        versionText(),
		AllowSources:   allowSources(v.plan.Config),
		Problems:       v.problems,
		Memory:         a.profile.status(),
		Counters:       map[string]uint64{},
	}
	if !v.have {
		s.Problems = append([]string{"the Gateway objects have not been read yet"}, a.clusterProblems()...)
	}
	s.Proxy = a.proxyStatus(v)
	s.Userspace = a.userspace()
	now := time.Now()
	s.Peers = append(a.carriers(v, now), a.peers(v, now)...)
	for _, c := range a.counters() {
		if c.Value == 0 || !strings.Contains(c.Name, "drop") {
			continue
		}
		name := c.Name
		if c.Reason != "" {
			name += "{" + c.Reason + "}"
		}
		s.Counters[name] += c.Value
	}
	return s
}

// carriers are the gateway nodes that a plain node sends through.
func (a *agent) carriers(v *view, now time.Time) []Peer {
	vteps := map[netip.Addr]dataplane.VTEPStatus{}
	for _, s := range a.vxlan.Status() {
		vteps[s.Addr] = s
	}
	var out []Peer
	for _, c := range v.plan.Carriers {
		s := vteps[c.Addr]
		p := Peer{
			Gateway:        v.plan.Gateway,
			Node:           c.Node,
			OverlayAddress: c.Overlay,
			MTU:            a.mtuTo(c.Overlay, v),
			RxBytes:        s.RxBytes,
			TxBytes:        s.TxBytes,
			Path:           Path{Kind: PathVXLAN, Endpoint: netip.AddrPortFrom(c.Addr, a.cfg.VXLANPort).String(), Why: "the home of this node"},
		}
		if !c.Home {
			p.Path.Why = "another gateway node of this domain carries this node"
		}
		r, ok := a.live.Of(c.Overlay)
		a.measured(&p, r)
		if !ok {
			p.Path.Kind, p.Path.Why = PathIdle, "no answer awaited yet"
		} else if r.silent >= silentPings {
			p.Path.Kind = PathNone
			p.Path.Why = fmt.Sprintf("%s does not answer pings over VXLAN%s: is its agent running, and UDP %d open between the nodes?", c.Addr, since(r.answered, now), a.cfg.VXLANPort)
		}
		out = append(out, p)
	}
	return out
}

// peers are the WireGuard peers of a gateway node or standby.
func (a *agent) peers(v *view, now time.Time) []Peer {
	states := map[key.Public]dataplane.PeerStatus{}
	if v.tunnel != nil {
		for _, s := range v.tunnel.Status() {
			states[s.PublicKey] = s
		}
	}
	managed := v.natStatus()
	search := !v.plan.Config.Self.Hub && slices.ContainsFunc(v.plan.Config.Peers, func(p dataplane.Peer) bool { return p.Keepalive > 0 })
	local := ""
	if v.tunnel != nil {
		ctx, cancel := context.WithTimeout(context.Background(), askNAT)
		local = natWords(v.tunnel.nat.LocalNAT(ctx))
		cancel()
	}
	var out []Peer
	for _, c := range v.plan.Config.Peers {
		if c.Other {
			continue // its node is shown by the key that is in use
		}
		s, n := states[c.PublicKey], managed[c.PublicKey]
		p := Peer{
			Gateway:        c.Gateway,
			Node:           c.Node,
			PublicKey:      c.PublicKey,
			OverlayAddress: c.PublicKey.Overlay(),
			MTU:            a.mtuTo(c.PublicKey.Overlay(), v),
			LastHandshake:  s.LastHandshake,
			RxBytes:        s.RxBytes,
			TxBytes:        s.TxBytes,
		}
		if len(c.AllowedIPs) > 0 {
			p.Subnets = c.AllowedIPs[1:] // the first is the overlay address
		}
		if s.Endpoint.IsValid() {
			p.Path.Endpoint = s.Endpoint.String()
		}
		r, _ := a.live.Of(p.OverlayAddress)
		a.measured(&p, r)
		tx, _ := a.traffic.peer(c.PublicKey)
		p.Path.Kind, p.Path.Why = judge(peerFacts{
			open: v.tunnel != nil, configured: c, state: s, ping: r,
			wanted: now.Sub(tx) < pathFresh, search: search && !c.SameDomain, now: now,
		})
		if n.Managed {
			if path, ok := v.managedPath(n, s, c.Keepalive > 0, now); ok {
				p.Path = path
			}
		}
		if n.RTT > 0 {
			p.RTTMillis, p.LossRatio = millis(n.RTT), n.Loss
		}
		if !c.SameDomain {
			p.NAT = NAT{Local: local, Remote: natWords(n.Remote)}
		}
		out = append(out, p)
	}
	sort.SliceStable(out, func(i, j int) bool {
		return cmp.Or(strings.Compare(out[i].Gateway, out[j].Gateway), strings.Compare(out[i].Node, out[j].Node)) < 0
	})
	return out
}

// peerFacts is all that decides what status says of a path.
type peerFacts struct {
	open       bool // the tunnel port
	configured dataplane.Peer
	state      dataplane.PeerStatus
	ping       reading
	wanted     bool // packets went there recently
	search     bool // a path is looked for when there is traffic
	now        time.Time
}

// What status says of more than one kind of path.
const (
	directIsBest = "direct is the best there is"
	noAnswer     = " has not answered a handshake: is UDP open to it, does it list this node's key?"
)

// judge says what kind of path there is to a WireGuard peer, and why it is not
// better. Up means that bytes moved recently in both directions.
func judge(f peerFacts) (PathKind, string) {
	s := f.state
	fresh := !s.LastReceive.IsZero() && f.now.Sub(s.LastReceive) < pathFresh
	switch {
	case !f.open:
		return PathNone, "the tunnel port is not open, see the problems"
	case s.Stream && fresh:
		return PathRelayTLS, "the peer came over TLS: its network lets no UDP through"
	case !s.Via.IsZero() && fresh:
		return PathRelay, "the peer came over a relay"
	case s.Stream || !s.Via.IsZero():
		return PathNone, fmt.Sprintf("nothing came the way that it came last%s", since(s.LastReceive, f.now))
	case !s.Endpoint.IsValid() && f.search:
		return PathIdle, "no traffic; a path is looked for with the first packet"
	case !s.Endpoint.IsValid() && f.wanted:
		return PathNone, "no address is known for it: it is behind a NAT and has not called yet"
	case !s.Endpoint.IsValid():
		return PathIdle, "no address is known for it; the first packet must come from there"
	case f.ping.silent >= silentPings && !fresh:
		return PathNone, fmt.Sprintf("%v does not answer%s", s.Endpoint, since(f.ping.answered, f.now))
	case s.LastHandshake.IsZero() && (f.wanted || f.configured.Keepalive > 0):
		return PathNone, s.Endpoint.String() + noAnswer
	case fresh:
		return PathDirect, directIsBest
	case f.wanted:
		return PathNone, fmt.Sprintf("nothing came from %v%s", s.Endpoint, since(s.LastReceive, f.now))
	default:
		return PathIdle, "no traffic"
	}
}

func (a *agent) measured(p *Peer, r reading) {
	p.RTTMillis = float64(r.rtt.Microseconds()) / 1000
	p.LossRatio = r.loss
}

// mtuTo is the largest inner packet to an address.
func (a *agent) mtuTo(addr netip.Addr, v *view) int {
	if r, ok := a.fabric.Lookup(addr); ok && r.MTU != 0 {
		return r.MTU
	}
	return v.plan.Config.Self.MTU
}

func since(t, now time.Time) string {
	if t.IsZero() {
		return " (it never did since the agent started)"
	}
	return fmt.Sprintf(" for %v", now.Sub(t).Round(time.Second))
}

// targets are the overlay addresses to ping in this second.
func (a *agent) targets() []target {
	v := a.view.Load()
	now := time.Now()
	var out []target
	for _, c := range v.plan.Carriers {
		if c.Overlay.IsValid() {
			tx, _ := a.traffic.vtep(c.Addr)
			out = append(out, target{addr: c.Overlay, busy: now.Sub(tx) < recently})
		}
	}
	out = mergeTargets(out, a.watched(v, now))
	if v.tunnel == nil {
		return out
	}
	states := a.states.Load()
	if states == nil {
		return out
	}
	self := v.plan.Config.Self
	for i := range v.plan.Config.Peers {
		p := &v.plan.Config.Peers[i]
		// A peer that nobody talks to is left in peace, and the paths to other
		// domains are probed by those who choose them.
		if p.Other || !p.SameDomain && (!self.Hub || p.Hub) {
			continue
		}
		tx, rx := a.traffic.peer(p.PublicKey)
		if !p.SameDomain && now.Sub(tx) > pathFresh {
			continue
		}
		at, ok := slices.BinarySearchFunc(*states, p.PublicKey, func(s dataplane.PeerStatus, k key.Public) int {
			return bytes.Compare(s.PublicKey[:], k[:])
		})
		if !ok || !(*states)[at].Endpoint.IsValid() || (*states)[at].LastHandshake.IsZero() {
			continue
		}
		out = append(out, target{
			addr: p.PublicKey.Overlay(),
			// What flows both ways needs no proof.
			busy:   now.Sub(tx) < recently && now.Sub(rx) > recently-time.Second,
			silent: func() bool { return v.tunnel.Handshake(p.PublicKey) },
		})
	}
	return mergeTargets(nil, out)
}

// mergeTargets adds targets to those that are there; two of one address become
// one.
func mergeTargets(all, more []target) []target {
	for _, t := range more {
		i := slices.IndexFunc(all, func(o target) bool { return o.addr == t.addr })
		if i < 0 {
			all = append(all, t)
			continue
		}
		all[i].busy = all[i].busy || t.busy
		if all[i].silent == nil {
			all[i].silent = t.silent
		}
	}
	return all
}

// ready reports whether the agent does its work, and if not, why.
func (a *agent) ready() (bool, []string) {
	v := a.view.Load()
	var why []string
	if !v.have {
		why = append(why, "the Gateway objects have not been read yet")
	}
	if v.plan.Config.Self.Tunnel && v.tunnel == nil {
		why = append(why, "the tunnel port is not open")
	}
	why = append(why, a.frontReady(v)...)
	return len(why) == 0, why
}

// pingTarget sends n echo requests, one a second, to a Gateway, a node or an
// address, and tells reply of each.
func (a *agent) pingTarget(ctx context.Context, name string, n int, reply func(PingReply)) error {
	addr, ok := a.find(name)
	if !ok {
		return fmt.Errorf("%q: %w", name, errNoTarget)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for seq := 1; ; seq++ {
		v := a.view.Load()
		for _, p := range v.plan.Config.Peers {
			if p.PublicKey.Overlay() == addr && v.tunnel != nil {
				v.tunnel.nat.Wanted(p.PublicKey)
			}
		}
		pctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		rtt, err := a.pingOnce(pctx, addr)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r := PingReply{Seq: seq, Address: addr, Lost: err != nil, RTTMillis: float64(rtt.Microseconds()) / 1000}
		if err != nil {
			r.RTTMillis = 0
		}
		for _, p := range a.status().Peers {
			if p.OverlayAddress == addr {
				r.Gateway, r.Node, r.Path = p.Gateway, p.Node, p.Path
			}
		}
		reply(r)
		if seq == n {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// find turns what a user names into an overlay address: a peer's node or
// Gateway, an overlay address, or an address that a peer carries.
func (a *agent) find(name string) (netip.Addr, bool) {
	v := a.view.Load()
	peers := append(a.carriers(v, time.Now()), a.peers(v, time.Now())...)
	for _, match := range []func(Peer) bool{
		func(p Peer) bool { return p.Node == name },
		func(p Peer) bool { return p.Gateway == name && len(p.Subnets) > 0 },
		func(p Peer) bool { return p.Gateway == name },
	} {
		if i := slices.IndexFunc(peers, match); i >= 0 && peers[i].OverlayAddress.IsValid() {
			return peers[i].OverlayAddress, true
		}
	}
	addr, err := netip.ParseAddr(name)
	if err != nil {
		return netip.Addr{}, false
	}
	if key.OverlayPrefix.Contains(addr) {
		_, ok := a.fabric.Lookup(addr)
		return addr, ok
	}
	return a.carrierOf(addr, v)
}

// carrierOf returns the overlay address of the gateway node that packets to
// addr go through.
func (a *agent) carrierOf(addr netip.Addr, v *view) (netip.Addr, bool) {
	r, ok := a.fabric.Lookup(addr)
	if !ok {
		return netip.Addr{}, false
	}
	switch r.Via {
	case dataplane.ViaWireGuard:
		return r.Peer.Overlay(), !r.Peer.IsZero()
	case dataplane.ViaVXLAN:
		i := slices.IndexFunc(v.plan.Carriers, func(c control.Carrier) bool { return c.Addr == r.VTEP })
		if i >= 0 {
			return v.plan.Carriers[i].Overlay, v.plan.Carriers[i].Overlay.IsValid()
		}
	}
	return netip.Addr{}, false
}
