package nat

import (
	"time"

	"corax/nat/path"
)

// sampleAll shows every machine that is awake what its path carries. Peers over
// relays come first: what they send and receive is traffic of the hub.
func (a *Agent) sampleAll(now time.Time) {
	for _, p := range a.peers {
		if p.active() && !p.Keep {
			a.sample(p, now)
		}
	}
	for _, h := range a.hubs {
		if h.active() {
			a.sample(h, now)
		}
	}
	a.dial(now)
}

// sample gives the machine of p the counters of the tunnel.
func (a *Agent) sample(p *peer, now time.Time) {
	if p.machine == nil {
		return
	}
	act, ok := a.tun().Activity(p.Key)
	if !ok {
		return
	}
	if via := act.Path.Via; !via.IsZero() {
		if act.Sent > p.last.Sent || act.Received > p.last.Received || act.Heard.After(p.last.Heard) {
			a.carry(via, grown(p.last.Sent, act.Sent), grown(p.last.Received, act.Received), act.Heard)
		}
	}
	t := path.Traffic{Sent: act.Sent, Received: act.Received, Heard: act.Heard}
	if !p.Keep {
		t.Sent = p.sent.count(now, act.Sent, p.chatter.sent.Load())
		// One look later: the tunnel counts what came before the hello is read.
		t.Received = p.received.count(now, p.last.Received, p.chatter.received.Load())
	}
	t.Sent += p.attempts
	p.last = act
	if p.Keep {
		if !act.Heard.IsZero() && (p.unsure || !p.answered) {
			a.surely(p)
		}
		t.Sent += p.carried.Sent
		t.Received += p.carried.Received
		if p.carried.Heard.After(t.Heard) {
			t.Heard = p.carried.Heard
		}
	}
	a.step(p, t)
}

// dataCame reports whether packets that are no hellos came from a peer since it
// was looked at last.
func (a *Agent) dataCame(p *peer, now time.Time) bool {
	act, ok := a.tun().Activity(p.Key)
	if !ok {
		return false
	}
	before := p.received.data
	p.last.Received = act.Received
	return p.received.count(now, act.Received, p.chatter.received.Load()) > before
}

// grown is by how much a counter grew; one that went down began anew.
func grown(was, is uint64) uint64 {
	if is < was {
		return is
	}
	return is - was
}
