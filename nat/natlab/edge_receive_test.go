package natlab_test

import (
	"encoding/binary"
	"net/netip"

	"corax/nat/natlab"
	"corax/nat/path"
)

// receive takes in a packet that came over a way. Via is the hub for what came
// over a hub's stream.
func (e *edge) receive(w path.Way, via *link, b []byte) {
	if e.dead || len(b) < headLen {
		return
	}
	from, to, body := int(b[1]), int(b[2]), b[headLen:]
	switch b[0] {
	case pktMapped:
		e.stunAnswer(w.To, body)
		return
	case pktRelay:
		e.receiveFrame(w, via, from, body)
		return
	}
	p := e.peers[from]
	if p == nil || to != e.id {
		return // a stranger, or a probe under another's key
	}
	switch b[0] {
	case pktProbe:
		_ = p.send(w, answer(b, w.To), 0, false)
		p.step(path.ProbeIn{Way: w, Tx: path.TxID(body[:12]), Size: len(b)})
	case pktAnswer:
		in := path.AnswerIn{Way: w, Tx: path.TxID(body[:12])}
		if len(body) > 12 {
			in.Mapped = parseAddr(body[12:])
		}
		p.step(in)
		if l := p.hub; l != nil && in.Mapped.IsValid() && l.mapped != in.Mapped {
			if l.mapped.IsValid() {
				e.discover() // a NAT has forgotten us, or has a new address
			}
			l.mapped = in.Mapped
		}
	case pktData:
		p.hear(w)
		p.received++
		p.traffic.arrived(binary.BigEndian.Uint64(body), e.s.lab.Now())
		p.sample()
	case pktHello:
		p.hear(w)
		h := e.s.mail[binary.BigEndian.Uint64(body)]
		p.remote = h.remote
		p.step(path.RemoteChanged{Remote: h.remote, Call: h.call})
	case pktKeepalive:
		p.hear(w)
		p.hub.sure(w)
		e.keepaliveAnswered(p.hub)
	}
}

func (e *edge) receiveFrame(w path.Way, via *link, from int, body []byte) {
	for _, l := range e.links {
		if l.h.id != from || (via != nil && via != l) || (via == nil && w.To.Addr() != l.h.addr) {
			continue
		}
		l.p.hear(w)
		l.sure(w)
		l.p.received++
		l.p.sample()
		lab := binary.BigEndian.Uint64(body)
		inner := body[8:]
		if origin, _ := unlabel(lab); len(inner) >= headLen && int(inner[1]) == origin {
			e.receive(path.Way{Kind: path.Relay, Hub: l.h.key, Label: lab}, nil, inner)
		}
	}
}

// hear notes what came over the way in use.
func (p *peer) hear(w path.Way) {
	if w == p.way || w.Kind == path.Relay && p.way.Kind == path.Relay && w.Hub == p.way.Hub {
		p.heard = p.e.s.lab.Now()
	}
}

// sure notes that the hub answers on the path to it.
func (l *link) sure(w path.Way) {
	if l.unsure && w == l.p.way {
		l.unsure = false
		for _, p := range l.p.e.edgePeers() {
			p.updateRelays()
		}
	}
}

// stunRound asks for the mapping.
type stunRound struct {
	asked   []netip.AddrPort
	answers map[netip.AddrPort]netip.AddrPort
	timer   *natlab.Timer
	again   bool // something happened meanwhile
}
