package nat

import (
	"time"

	"corax/control/hello"
	"corax/dataplane/key"
	"corax/nat/relay"
	"corax/nat/stun"
)

const (
	holdEvery = 20 * time.Second // a machine sleeps after a minute
	// linkEvery is how often a hub measures the link to an edge that it relays for;
	// at first more often.
	linkEvery  = time.Second
	linkFirst  = 3
	linkLostIn = 2 * time.Second
)

// chores are what has time for a second.
func (a *Agent) chores(now time.Time) {
	a.inbox.expire(now)
	for _, h := range a.hubs {
		if h.Keep && now.Sub(h.held) > holdEvery {
			a.want(h)
		}
	}
	a.refreshSessions(now)
	a.askMore(now)
	a.testFiltering(now)
	a.stepFilter(now)
	a.stopHelping(now)
	a.measure(now)
	a.flood()
	for _, p := range a.peers {
		if p.active() && !p.Keep {
			a.offer(p)
		}
		if a.plan.Self.Hub {
			a.settle(p, now)
		}
		a.retire(p, now)
		a.listen(p, now)
		if p.parked && p.active() {
			a.unpark(p)
		}
	}
	a.callStandbys(now)
	a.tellMTUs()
	refused := a.book.Counters()
	a.bookCounters.Store(&refused)
}

// refreshSessions tells the book whom we reach ourselves, and introduces us to
// edges that are new.
func (a *Agent) refreshSessions(now time.Time) {
	var list []relay.Session
	for _, p := range a.peers {
		if !a.session(p, now) {
			if p.inSession {
				p.inSession = false
				if p.machine == nil {
					a.hello.SetActive(p.Key, false)
				}
			}
			continue
		}
		cost := a.costOf(p)
		if p.Hub {
			cost += p.Cost
		}
		list = append(list, relay.Session{Peer: p.Key, Hub: p.Hub && p.Relay, Cost: cost})
		if !p.inSession {
			p.inSession = true
			a.newSession(p, now)
		}
	}
	a.book.SetSessions(now, list)
}

// newSession says everything to a peer that is back, and hears again what it
// said: the book forgot.
func (a *Agent) newSession(p *peer, now time.Time) {
	if a.plan.Self.Hub || p.Keep {
		a.hello.SetActive(p.Key, true)
	}
	a.introduce(p)
	a.hello.Resend(p.Key)
	if r := a.hello.Of(p.Key).Relay; r != nil {
		a.later = append(a.later, func() { a.heardRelay(p, r, now) })
	}
}

// measure probes the edges that we relay for, and hubs, over the path that they
// chose.
func (a *Agent) measure(now time.Time) {
	for k := range a.measured {
		a.measureLink(a.peers[k], now)
	}
	if a.plan.Self.Hub {
		for _, h := range a.hubs {
			a.measureLink(h, now)
		}
	}
}

func (a *Agent) measureLink(p *peer, now time.Time) {
	if p == nil || p.machine != nil || !p.remote.CanProbe {
		return
	}
	if p.flying != (stun.TxID{}) {
		if now.Sub(p.sentAt) < linkLostIn {
			return
		}
		p.flying = stun.TxID{}
		p.link.Lost(now)
	}
	if p.samples >= linkFirst && now.Sub(p.sentAt) < linkEvery {
		return
	}
	act, ok := a.tun().Activity(p.Key)
	if !ok || !act.Path.own() {
		return
	}
	var tx stun.TxID
	fill(tx[:])
	data, err := stun.AppendProbe(nil, stun.Probe{Tx: tx, To: p.probeID, From: a.probeID}, p.probeKey)
	if err != nil || !a.inbox.expect(tx, flight{peer: p.Key, purpose: forLink, at: now}) {
		return
	}
	p.flying, p.sentAt, p.samples = tx, time.Now(), p.samples+1
	p.link.Sent(now)
	a.tun().SendRaw([]Raw{{Path: act.Path, Data: data}})
}

// flood tells the other hubs what our links cost, when that is worth saying.
func (a *Agent) flood() {
	if !a.plan.Self.Hub {
		return
	}
	next := make(map[key.Public]time.Duration, len(a.flooded))
	for _, h := range a.hubs {
		if h.inSession && (h.machine != nil || h.link.Known()) {
			next[h.Key] = a.costOf(h)
		}
	}
	for k := range a.measured {
		if p := a.peers[k]; p != nil && p.inSession && p.link.Known() {
			next[k] = p.link.Cost()
		}
	}
	var c hello.Costs
	for k, d := range next {
		if was, ok := a.flooded[k]; ok && near(was, d) {
			next[k] = was
		}
	}
	a.flooded = next
	for _, p := range a.plan.Peers {
		if d, ok := next[p.Key]; ok && len(c.Links) < hello.MaxLinks {
			c.Links = append(c.Links, hello.Link{To: p.Key, Micros: uint32(min(d, time.Hour) / time.Microsecond), Hub: p.Hub})
		}
	}
	for _, h := range a.hubs {
		a.check("costs", a.hello.SetCosts(h.Key, c))
	}
}

// links gives the book what the other hubs say of their links.
func (a *Agent) links(now time.Time) {
	var list []relay.Link
	for _, h := range a.hubs {
		if h.costs == nil {
			continue
		}
		for _, l := range h.costs.Links {
			list = append(list, relay.Link{Hub: h.Key, To: l.To, Cost: time.Duration(l.Micros) * time.Microsecond})
		}
	}
	a.book.SetLinks(now, list)
}
