package natlab_test

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"corax/nat/natlab"
	"corax/nat/path"
)

const (
	idleKeepalive = 25 * time.Second
	busyKeepalive = 5 * time.Second
)

// dial opens the stream to a hub, and again when it ends.
func (e *edge) dial(l *link) {
	if e.dead {
		return
	}
	e.host.Dial(netip.AddrPortFrom(l.h.addr, tlsPort), func(s *natlab.Stream) {
		if s == nil {
			e.s.lab.After(time.Second, func() { e.dial(l) })
			return
		}
		l.stream, l.number = s, l.number+100
		way := path.Way{Kind: path.Stream, Stream: l.number}
		s.OnReceive(func(_ time.Time, data []byte) { e.receive(way, l, data) })
		s.OnClose(func(time.Time) {
			l.stream = nil
			l.p.step(path.RelaysChanged{})
			l.p.step(path.Lost{Way: way, Why: "stream closed"})
			e.dial(l)
		})
		l.p.step(path.RelaysChanged{Relays: []path.RelayWay{{Way: way, Cost: 50 * time.Millisecond}}})
	})
}

// keepalive keeps the session with a hub, and measures its RTT: more often
// while any peer is wanted.
func (e *edge) keepalive(l *link) {
	e.sendKeepalive(l)
	every := idleKeepalive
	if l.heard.IsZero() || slices.ContainsFunc(e.edgePeers(), (*peer).recent) {
		every = busyKeepalive
	}
	if now := e.s.lab.Now(); !l.heard.IsZero() && now.Sub(l.heard) > 2*every+time.Second {
		l.p.want() // the session is silent: find another way to the hub
	}
	e.s.lab.After(every, func() { e.keepalive(l) })
}

func (e *edge) sendKeepalive(l *link) {
	l.asked = e.s.lab.Now()
	_ = l.p.send(l.p.way, head(pktKeepalive, e.id, l.h.id), 0, false)
}

// keepaliveAnswered also stands for the hub's hello, with its probe key.
func (e *edge) keepaliveAnswered(l *link) {
	now := e.s.lab.Now()
	first := l.heard.IsZero()
	l.heard = now
	if rtt := now.Sub(l.asked); first {
		l.rtt = rtt
		l.p.step(path.RemoteChanged{Remote: path.Remote{Hub: true, CanProbe: true, Candidates: []path.Candidate{
			{Kind: path.Configured, Addr: netip.AddrPortFrom(l.h.addr, tunnelPort)},
		}}})
	} else {
		l.rtt += (rtt - l.rtt) / 8
	}
	for _, p := range e.edgePeers() {
		p.updateRelays()
		if other := e.s.edgeByID(p.id).peers[e.id]; other != nil {
			other.updateRelays() // the hub floods it
		}
	}
}

// rtt is the cost of the link between two hubs, which they measure.
func (h *hub) rtt(other *hub) time.Duration {
	if d, ok := h.s.between[[2]int{h.id, other.id}]; ok {
		return d
	}
	return 20 * time.Millisecond
}

// networkChanged is what the netlink events of the real agent do.
func (e *edge) networkChanged(why string) {
	e.refreshLocal(path.NAT{}, nil)
	for _, p := range e.allPeers() {
		p.step(path.NetworkChanged{Why: why})
	}
	for _, l := range e.links {
		e.sendKeepalive(l)
	}
	e.discover()
}

func (e *edge) allPeers() []*peer {
	var out []*peer
	for id := range e.s.ids {
		if p := e.peers[id+1]; p != nil {
			out = append(out, p)
		}
	}
	return out
}

// refreshLocal gives all machines our end, and all active peers a hello.
func (e *edge) refreshLocal(nat path.NAT, reflexive []netip.AddrPort) {
	local := path.Local{NAT: nat}
	for _, p := range e.host.Addrs() {
		local.Candidates = append(local.Candidates, path.Candidate{Kind: path.Host, Addr: netip.AddrPortFrom(p.Addr(), tunnelPort)})
		local.Own = append(local.Own, p.Addr())
		local.Connected = append(local.Connected, p.Masked())
	}
	for _, a := range reflexive {
		local.Candidates = append(local.Candidates, path.Candidate{Kind: path.ServerReflexive, Addr: a})
	}
	if slices.Equal(local.Candidates, e.local.Candidates) && local.NAT == e.local.NAT {
		return
	}
	e.local = local
	for _, p := range e.allPeers() {
		p.step(path.LocalChanged{Local: local})
		if p.hub == nil && p.way.Kind != path.None && p.recent() {
			e.sendHello(p, false)
		}
	}
}

// discover finds out the mapping by three STUN servers at two addresses.
func (e *edge) discover() {
	if e.stun != nil {
		e.stun.again = true
		return
	}
	r := &stunRound{answers: make(map[netip.AddrPort]netip.AddrPort)}
	for i, l := range e.links {
		r.asked = append(r.asked, netip.AddrPortFrom(l.h.addr, tunnelPort))
		if i == 0 {
			r.asked = append(r.asked, netip.AddrPortFrom(l.h.addr, altPort))
		}
	}
	e.stun = r
	e.askStun(3)
}

func (e *edge) askStun(left int) {
	r := e.stun
	if left == 0 || len(r.answers) == len(r.asked) {
		e.stun = nil
		e.refreshLocal(e.judge(r))
		if r.again {
			e.discover()
		}
		return
	}
	for _, to := range r.asked {
		if _, ok := r.answers[to]; !ok {
			_ = e.socks[0].Send(to, head(pktStun, e.id, 0), 0, false)
		}
	}
	r.timer = e.s.lab.After(500*time.Millisecond, func() { e.askStun(left - 1) })
}

func (e *edge) stunAnswer(from netip.AddrPort, body []byte) {
	if r := e.stun; r != nil {
		r.answers[from] = parseAddr(body)
		if len(r.answers) == len(r.asked) {
			r.timer.Stop()
			e.askStun(0)
		}
	}
}

// judge is the mapping behaviour that the answers show.
func (e *edge) judge(r *stunRound) (path.NAT, []netip.AddrPort) {
	var seen []netip.AddrPort
	for _, to := range r.asked {
		if a, ok := r.answers[to]; ok {
			seen = append(seen, a)
		}
	}
	if len(seen) == 0 {
		return path.NAT{Blocked: true}, nil
	}
	nat := path.NAT{Mapping: path.MappingUnknown}
	if e.s.knowFiltering {
		nat.Filtering = e.site.filtering()
	}
	steps := make([]int, 0, len(seen))
	for i := 1; i < len(seen); i++ {
		steps = append(steps, int(seen[i].Port())-int(seen[i-1].Port()))
	}
	switch {
	case slices.ContainsFunc(e.host.Addrs(), func(p netip.Prefix) bool { return p.Addr() == seen[0].Addr() }):
		nat.Mapping, nat.Filtering = path.MappingNone, path.FilteringEndpointIndependent
	case len(seen) == 1 || len(e.links) > 1 && oneAddress(r.answers):
		// One server says little: what was known of the NAT still holds.
		nat.Mapping, nat.PortStep = e.local.NAT.Mapping, e.local.NAT.PortStep
	case !slices.ContainsFunc(steps, func(n int) bool { return n != 0 }):
		nat.Mapping = path.MappingEndpointIndependent
	default:
		nat.Mapping = path.MappingAddressAndPortDependent
		if s := steps[0]; len(steps) > 1 && s == steps[1] && s > -16 && s < 16 {
			nat.PortStep = s
		} else if e.local.NAT.Mapping == nat.Mapping {
			nat.PortStep = e.local.NAT.PortStep // an answer was lost, and the order with it
		}
	}
	return nat, seen[len(seen)-1:]
}

func oneAddress(answers map[netip.AddrPort]netip.AddrPort) bool {
	seen := make(map[netip.Addr]bool)
	for from := range answers {
		seen[from.Addr()] = true
	}
	return len(seen) == 1
}

// filtering is the truth about the site, for runs in which it was found out.
func (st *site) filtering() uint8 {
	if st.kind == public {
		return path.FilteringEndpointIndependent
	}
	return uint8(st.kind.nat().Filtering)
}

// announce sends our candidates. Behind a sequential NAT the port that comes
// next is looked up first, with a socket that has no mapping yet.
func (e *edge) announce(p *peer, call bool) {
	if e.local.NAT.PortStep == 0 || len(e.links) == 0 {
		e.sendHello(p, call)
		return
	}
	var sock *natlab.Socket
	done := false
	finish := func(seen netip.AddrPort) {
		if done {
			return
		}
		done = true
		sock.Close()
		if seen.IsValid() {
			e.refreshLocal(e.local.NAT, []netip.AddrPort{seen})
		}
		e.sendHello(p, call)
	}
	sock = e.host.Listen(0, func(_ time.Time, d natlab.Datagram) { finish(parseAddr(d.Data[headLen:])) })
	_ = sock.Send(netip.AddrPortFrom(e.links[0].h.addr, tunnelPort), head(pktStun, e.id, 0), 0, false)
	e.s.lab.After(300*time.Millisecond, func() { finish(netip.AddrPort{}) })
}

// sendHello sends our candidates over the present path. As the real exchange
// it does not repeat them until the next heartbeat.
func (e *edge) sendHello(p *peer, call bool) {
	e.s.lab.Tracef("edge%d: peer %d: hello, call %v, NAT %+v", e.id, p.id, call, e.local.NAT)
	e.s.mail = append(e.s.mail, hello{call: call, remote: path.Remote{
		Candidates: e.local.Candidates, NAT: e.local.NAT, CanProbe: true,
	}})
	b := binary.BigEndian.AppendUint64(head(pktHello, e.id, p.id), uint64(len(e.s.mail)-1))
	_ = p.send(p.way, b, 0, false)
}

// recent says whether there was traffic for the peer in the last minute.
func (p *peer) recent() bool {
	return !p.wanted.IsZero() && p.e.s.lab.Now().Sub(p.wanted) < time.Minute
}

// heartbeat repeats the hello every 25 s while the path is used.
func (p *peer) heartbeat() {
	if p.recent() {
		p.e.sendHello(p, false)
	}
	p.e.s.lab.After(25*time.Second, p.heartbeat)
}
