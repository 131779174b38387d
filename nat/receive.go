package nat

import (
	"crypto/rand"
	"net/netip"
	"time"

	"corax/control/hello"
	"corax/dataplane/key"
	"corax/nat/path"
	"corax/nat/stun"
)

func fill(b []byte) { _, _ = rand.Read(b) } // never fails: see its documentation

// take handles a STUN message that somebody here waits for, or a probe.
func (a *Agent) take(d message) {
	m, err := stun.Parse(d.Data)
	if err != nil {
		return // it was parsed before
	}
	if a.filterAnswer(d, m) {
		return
	}
	switch m.Kind {
	case stun.KindProbe:
		a.probe(d, m)
	case stun.KindAnswer:
		a.answer(d, m)
	case stun.KindRequest, stun.KindResponse, stun.KindRefusal:
		if d.From.IsValid() && d.Via.IsZero() && d.Stream == nil {
			a.stepDiscovery(stun.ResponseIn{Message: m, From: d.From})
		}
	}
}

// probe answers the probe of a peer at once, the way it came.
func (a *Agent) probe(d message, m stun.Message) {
	drops := &a.inbox.drops
	p := a.byProbeID[m.From]
	if p == nil {
		// Its candidates have not come yet; who relays or has a stream is known.
		p = a.peers[d.Peer]
	}
	switch {
	case p == nil:
		drops.add(dropUnknownSender)
		return
	case !d.Peer.IsZero() && d.Peer != p.Key:
		drops.add(dropWrongOrigin)
		return
	case !a.limiter.Allow():
		drops.add(dropProbeRate)
		return
	case !m.Verify(a.probeKey):
		drops.add(dropBadMAC)
		return
	}
	back, seen := a.wayBack(d)
	if back == (Path{}) {
		drops.add(dropNoWayBack)
		return
	}
	a.tun().SendRaw([]Raw{{Path: back, Data: stun.AppendAnswer(nil, m.Tx, seen, a.probeKey)}})
	if !d.Via.IsZero() {
		a.carry(d.Via, 0, 1, time.Now())
	}
	a.step(p, path.ProbeIn{Way: a.wayOf(d), Tx: path.TxID(m.Tx), Size: m.Size})
}

// wayBack is how an answer goes to where d came from, and the address that the
// sender has there.
func (a *Agent) wayBack(d message) (Path, netip.AddrPort) {
	inside := netip.AddrPortFrom(d.Peer.Overlay(), hello.Port)
	switch {
	case !d.Via.IsZero():
		// Not another circuit of the same hub: that may lead over a second one.
		for _, r := range a.book.Relays(d.Peer) {
			if r.Hub == d.Via && r.Label == d.Label {
				return Path{Via: r.Hub, Label: r.Label}, inside
			}
		}
		return Path{}, inside
	case d.Stream != nil:
		return Path{Stream: d.Stream}, inside
	}
	return Path{To: d.From, Local: d.Local, Socket: d.Socket}, d.From
}

// wayOf is the way over which d came.
func (a *Agent) wayOf(d message) path.Way {
	switch {
	case !d.Via.IsZero():
		return path.Way{Kind: path.Relay, Hub: d.Via, Label: d.Label}
	case d.Stream != nil:
		if p := a.peers[d.Peer]; p != nil && p.conn == d.Stream {
			return path.Way{Kind: path.Stream, Stream: p.number}
		}
		return path.Way{Kind: path.Stream}
	}
	return path.Way{Kind: path.Direct, To: d.From, Socket: d.Socket}
}

// answer takes the answer to a probe of ours.
func (a *Agent) answer(d message, m stun.Message) {
	f, ok := a.inbox.expected(m.Tx)
	p := a.peers[f.peer]
	if !ok || p == nil || f.purpose == forSTUN || f.purpose == forFilter {
		a.inbox.drops.add(dropUnsolicited)
		return
	}
	if !d.Peer.IsZero() && d.Peer != p.Key {
		a.inbox.drops.add(dropWrongOrigin)
		return
	}
	if !a.limiter.Allow() {
		a.inbox.drops.add(dropProbeRate)
		return
	}
	if !m.Verify(p.probeKey) {
		a.inbox.drops.add(dropBadMAC)
		return
	}
	a.inbox.land(m.Tx)
	now := time.Now()
	if f.purpose == forLink {
		if p.flying == m.Tx {
			p.flying = stun.TxID{}
			p.link.Answered(now, now.Sub(p.sentAt))
		}
		return
	}
	w := a.wayOf(d)
	if w.Kind == path.Relay {
		a.carry(w.Hub, 0, 1, now)
	}
	a.step(p, path.AnswerIn{Way: w, Tx: path.TxID(m.Tx), Mapped: m.Mapped})
	if !p.Keep {
		return
	}
	a.surely(p)
	if w == p.way && w.Kind == path.Direct && w.Socket == 0 && m.Mapped != p.mapped {
		if p.mapped.IsValid() {
			a.discover("a hub sees us at another address")
		}
		p.mapped = m.Mapped
	}
}

// carry counts a relay frame as traffic of the hub, whose machine must notice
// when it is lost.
func (a *Agent) carry(hub key.Public, sent, received uint64, at time.Time) {
	h := a.peers[hub]
	if h == nil {
		return
	}
	h.carried.Sent += sent
	h.carried.Received += received
	if at.After(h.carried.Heard) {
		h.carried.Heard = at
		a.surely(h)
	}
}

// surely notes that a hub was heard.
func (a *Agent) surely(h *peer) {
	first := !h.answered
	if !first && !h.unsure {
		return
	}
	h.answered, h.unsure = true, false
	a.later = append(a.later, func() {
		if first {
			a.refreshSessions(time.Now())
		}
		a.offerAll()
	})
}
