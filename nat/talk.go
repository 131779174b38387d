package nat

import (
	"slices"
	"time"

	"corax/control/hello"
	"corax/dataplane/key"
	"corax/nat/path"
	"corax/nat/relay"
	"corax/nat/stun"
)

// minMTU is the least inner MTU that a peer is believed, in bytes: the least that
// is probed.
const minMTU = 1184

// sayAgain is after how long an unchanged announcement is said once more.
const sayAgain = 2 * time.Second

// introduce tells a peer how it can reach us.
func (a *Agent) introduce(p *peer) {
	c := hello.Candidates{
		ProbeID: a.probeID, ProbeKey: a.probeKey, Mapping: a.local.NAT.Mapping, Filtering: a.local.NAT.Filtering,
		PortStep: int16(a.local.NAT.PortStep), Blocked: a.local.NAT.Blocked, Calls: p.candidates.Calls, MTU: uint16(min(p.shownMTU, 1<<16-1)),
	}
	for _, l := range a.local.Candidates {
		c.Addrs = append(c.Addrs, hello.Candidate{Kind: uint8(l.Kind), Addr: l.Addr})
	}
	if a.filter != nil && a.filter.Addr.IsValid() && p.Hub {
		c.Test = a.filter.Test
	}
	p.candidates, p.introduced = c, true
	a.check("candidates", a.hello.SetCandidates(p.Key, c))
}

// call tells a peer how it can reach us, and asks it to answer.
func (a *Agent) call(p *peer) {
	if a.calls++; a.calls == 0 {
		a.calls = 1
	}
	p.candidates.Calls = a.calls
	a.introduce(p)
}

// announce tells a peer our candidates now; with call it is asked for its own.
// Behind a NAT that numbers its mappings the next port is looked up first.
func (a *Agent) announce(p *peer, call bool) {
	say := func() {
		if a.peers[p.Key] != p {
			return
		}
		before := p.candidates
		if call {
			a.call(p)
		} else {
			a.introduce(p)
		}
		if now := time.Now(); !call && same(before, p.candidates) && now.Sub(p.said) > sayAgain {
			a.hello.Resend(p.Key)
		}
		p.said = time.Now()
	}
	if a.local.NAT.PortStep != 0 {
		a.lookAhead(say)
		return
	}
	say()
}

func same(a, b hello.Candidates) bool {
	return slices.Equal(a.Addrs, b.Addrs) && a.Mapping == b.Mapping && a.Filtering == b.Filtering &&
		a.PortStep == b.PortStep && a.Blocked == b.Blocked && a.MTU == b.MTU
}

// heard reads what a peer said.
func (a *Agent) heard(p *peer, topics uint32) {
	if p.SameDomain {
		return
	}
	now := time.Now()
	h := a.hello.Of(p.Key)
	if p.Twin && now.Sub(h.At) < time.Second { // not something that lapsed
		a.cfg.Heard(p.Key)
	}
	if p.Keep {
		a.surely(p)
	}
	if !a.session(p, now) {
		a.refreshSessions(now)
	} else if !p.introduced {
		a.refreshSessions(now)
	}
	if draining := h.Self != nil && h.Self.Draining; draining != p.draining {
		p.draining = draining
		a.offerAll()
	}
	if topics&(1<<hello.TopicCandidates) != 0 && h.Candidates != nil && h.Candidates != p.told {
		a.heardCandidates(p, h.Candidates)
	}
	if topics&(1<<hello.TopicCosts) != 0 {
		p.costs = h.Costs
		a.links(now)
	}
	if topics&(1<<hello.TopicRelay) != 0 {
		a.heardRelay(p, h.Relay, now)
	}
	if topics&(1<<hello.TopicClaims) != 0 {
		a.claimed(p, h.Claims)
	}
}

func (a *Agent) heardCandidates(p *peer, c *hello.Candidates) {
	p.told = c
	restarted := p.remote.CanProbe && p.probeID != stun.ProbeID(c.ProbeID)
	if other := a.byProbeID[c.ProbeID]; other != nil && other != p {
		return // it takes another's name: whose probes those are is settled
	}
	delete(a.byProbeID, p.probeID)
	p.probeID, p.probeKey = c.ProbeID, c.ProbeKey
	a.byProbeID[p.probeID] = p
	called := c.Calls != 0 && (restarted || c.Calls != p.calls)
	p.calls = c.Calls
	r := path.Remote{CanProbe: true, NAT: path.NAT{
		Mapping: c.Mapping, Filtering: c.Filtering, PortStep: int(c.PortStep), Blocked: c.Blocked,
	}}
	for _, x := range c.Addrs {
		r.Candidates = append(r.Candidates, path.Candidate{Kind: path.CandidateKind(x.Kind), Addr: x.Addr})
	}
	p.remote = r
	if p.machine == nil && c.MTU != 0 {
		// It chose the path and has probed it.
		a.setMTU(p, min(max(int(c.MTU), minMTU), max(a.plan.MaxMTU, minMTU)))
	}
	if restarted || !p.introduced {
		a.introduce(p)
		a.hello.Resend(p.Key)
	}
	if c.Test != (hello.Test{}) {
		a.help(p, c.Test)
	}
	switch {
	case called && a.passive(p):
		a.hello.Resend(p.Key)
	case called:
		a.machineOf(p)
	}
	a.remoteChanged(p, called)
}

// heardRelay takes what a peer wants relayed, and the labels that it gives.
func (a *Agent) heardRelay(p *peer, r *hello.Relay, now time.Time) {
	if r == nil {
		r = new(hello.Relay)
	}
	labels := make([]relay.Label, len(r.Labels))
	for i, l := range r.Labels {
		labels[i] = relay.Label(l)
	}
	if p.Hub {
		a.book.Told(now, p.Key, labels)
	}
	wants := make([]relay.Want, len(r.Wanted))
	for i, w := range r.Wanted {
		wants[i] = relay.Want(w)
	}
	if a.plan.Self.Hub {
		a.book.Wanted(now, p.Key, p.Hub, wants)
	}
	a.tellRelays()
	a.offerAll()
	for _, l := range labels {
		q := a.peers[l.Peer]
		if q == nil || !l.Origin.IsZero() || len(a.book.Relays(q.Key)) == 0 || !fresh(q, p.Key, l.Label) {
			continue
		}
		// Somebody there wants us, or a label that we had is another.
		if !q.Keep && !q.active() && !q.SameDomain && !a.passive(q) {
			a.machineOf(q)
			a.offer(q)
			a.want(q)
		}
	}
}

// fresh reports whether a hub's label for a peer is another than before. That
// counts once, also while the peer is active: the hub repeats it for as long as
// it is asked for.
func fresh(p *peer, hub key.Public, label uint64) bool {
	if p.seen[hub] == label {
		return false
	}
	set(&p.seen, hub, label)
	return true
}

// tellRelays gives the tunnel and the peers what the label book says now.
func (a *Agent) tellRelays() {
	for _, k := range a.book.Changed() {
		p := a.peers[k]
		if p == nil {
			continue
		}
		wants, labels := a.book.Tell(k)
		var r hello.Relay
		for _, w := range wants {
			r.Wanted = append(r.Wanted, hello.Want(w))
		}
		for _, l := range labels {
			r.Labels = append(r.Labels, hello.Label(l))
		}
		a.check("relay", a.hello.SetRelay(k, r))
	}
	if v := a.book.Version(); v != a.forwards {
		a.forwards = v
		labels := a.book.Forwards()
		a.tun().SetLabels(labels)
		a.measured = nil
		for _, f := range labels {
			if f.Out == 0 {
				continue
			}
			for _, k := range [2]key.Public{f.From, f.To} {
				if p := a.peers[k]; p != nil && !p.Hub {
					set(&a.measured, k, true)
				}
			}
		}
	}
}

// offerAll gives every machine that is awake its relays.
func (a *Agent) offerAll() {
	for _, p := range a.peers {
		if p.machine != nil {
			a.offer(p)
		}
	}
}

// offer gives the machine of p the relays and streams that there are.
func (a *Agent) offer(p *peer) {
	if p.machine == nil {
		return
	}
	var ways []path.RelayWay
	if p.conn != nil {
		ways = append(ways, path.RelayWay{Way: path.Way{Kind: path.Stream, Stream: p.number}, Cost: streamCost})
	}
	if !p.Keep {
		for _, r := range a.book.Relays(p.Key) {
			if w, ok := a.relayWay(r); ok {
				ways = append(ways, w)
			}
		}
	}
	if slices.EqualFunc(ways, p.relays, func(x, y path.RelayWay) bool {
		return x.Way == y.Way && x.Penalty == y.Penalty && x.Leaving == y.Leaving && near(x.Cost, y.Cost) && slices.Equal(x.Via, y.Via)
	}) {
		return
	}
	p.relays = ways
	a.step(p, path.RelaysChanged{Relays: slices.Clone(ways)})
	if p.parked && !p.active() && len(ways) > 0 && p.asking {
		if w, ok := a.pathOf(ways[0].Way); ok {
			a.tun().SetPath(p.Key, w, true)
		}
	}
}

const (
	// streamCost is what a stream costs before it was measured.
	streamCost = 50 * time.Millisecond
	// furtherRelay is the penalty of each relay after the first.
	furtherRelay = 10 * time.Millisecond
	// unsureCost is added while a hub was not heard since its path changed.
	unsureCost = time.Second
	// unknownCost is that of a session that was not measured.
	unknownCost = 100 * time.Millisecond
)

// near reports that two costs differ too little to say so.
func near(x, y time.Duration) bool { return (x - y).Abs() <= max(time.Millisecond, x/16) }

func (a *Agent) relayWay(r relay.Relay) (path.RelayWay, bool) {
	h := a.peers[r.Hub]
	if h == nil || h.way.Kind == path.None && h.machine != nil {
		return path.RelayWay{}, false
	}
	w := path.RelayWay{
		Way: path.Way{Kind: path.Relay, Hub: r.Hub, Label: r.Label},
		Via: append([]key.Public{r.Hub}, r.Via...), Penalty: h.Cost + furtherRelay*time.Duration(len(r.Via)),
		Leaving: h.draining,
	}
	for _, k := range r.Via {
		if v := a.peers[k]; v != nil {
			w.Penalty += v.Cost
			w.Leaving = w.Leaving || v.draining
		}
	}
	w.Cost = r.Cost + furtherRelay*time.Duration(len(r.Via)) // the book knows what the hubs cost
	if h.unsure {
		w.Cost += unsureCost
	}
	return w, true
}

// costOf is the measured cost of a session, without what is configured.
func (a *Agent) costOf(p *peer) time.Duration {
	if p.machine != nil {
		for _, c := range p.machine.Status().Candidates {
			if c.Way == p.way && c.Score > 0 {
				return c.Score
			}
		}
		return unknownCost
	}
	if p.link.Known() {
		return p.link.Cost()
	}
	return unknownCost
}
