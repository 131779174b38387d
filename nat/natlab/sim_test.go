package natlab_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"corax/dataplane/key"
	"corax/nat/natlab"
)

// sim is a mesh: hubs, and edges at sites, each edge with path machines.
type sim struct {
	lab           *natlab.Lab
	wan           *natlab.Network
	sites         []*site
	hubs          []*hub
	edges         []*edge
	ids           int
	keys          map[key.Public]int
	mail          []hello // the bodies of hellos, by the index that their packets carry
	trace         *ring
	between       map[[2]int]time.Duration // RTT of hub pairs, where it is set
	knowFiltering bool                     // edges know the filtering of their NATs
}

// ring keeps the last lines of a trace.
type ring struct {
	lines []string
	next  int
}

func (r *ring) add(line string) {
	if len(r.lines) < cap(r.lines) {
		r.lines = append(r.lines, line)
		return
	}
	r.lines[r.next] = line
	r.next = (r.next + 1) % len(r.lines)
}

func (r *ring) String() string {
	return strings.Join(r.lines[r.next:], "\n") + "\n" + strings.Join(r.lines[:r.next], "\n")
}

const (
	tunnelPort = 4500
	altPort    = 4501 // a hub's second STUN server, for a third sample of the mapping
	tlsPort    = 10280
)

// newSim makes the WAN. With trace, what happens to each packet is kept.
func newSim(seed uint64, wan natlab.Link, trace int) *sim {
	s := &sim{lab: natlab.New(seed), keys: make(map[key.Public]int)}
	s.wan = s.lab.Network(natlab.NetworkConfig{Name: "wan", Hops: 6, Link: wan})
	if trace > 0 {
		s.trace = &ring{lines: make([]string, 0, trace)}
		s.lab.Trace(s.trace.add)
	}
	return s
}

// identity hands out the next id and its key.
func (s *sim) identity() (int, key.Public) {
	s.ids++
	var k key.Public
	k[0], k[31] = byte(s.ids), byte(s.lab.Rand().IntN(256))
	s.keys[k] = s.ids
	return s.ids, k
}

func (s *sim) hubByID(id int) *hub {
	for _, h := range s.hubs {
		if h.id == id {
			return h
		}
	}
	return nil
}

// The packets: kind, sender, receiver, then what the kind needs. They stand for
// what is authentic in the real thing; a wrong receiver stands for a wrong key.
const (
	pktProbe     = 'P' // tx, padding
	pktAnswer    = 'A' // tx, mapped address
	pktData      = 'D' // counter, way it left by
	pktHello     = 'H' // index of the body
	pktKeepalive = 'K'
	pktRelay     = 'R' // label, frame
	pktTransit   = 'T' // hub to hub: label, frame
	pktStun      = 'S' // tx
	pktMapped    = 'M' // tx, mapped address
)

const headLen = 3

func head(kind byte, from, to int) []byte { return []byte{kind, byte(from), byte(to)} }

// A label says to a hub whom a frame is for and through which other hub it
// goes, and to the receiver whom it is from and through which other hub.
func label(peer, otherHub int) uint64 { return uint64(peer) | uint64(otherHub)<<8 }

func unlabel(l uint64) (peer, otherHub int) { return int(l & 0xff), int(l >> 8) }

// hub relays by label, answers probes and STUN.
type hub struct {
	s       *sim
	id      int
	key     key.Public
	host    *natlab.Host
	ifc     *natlab.Interface
	sock    *natlab.Socket
	addr    netip.Addr
	ways    map[int]hubWay // where each edge was last heard
	relayed int
	known   bool // the other hubs know that it is dead
}

// kill ends a hub without a farewell. The other hubs probe it as any peer, and
// tell their edges.
func (h *hub) kill() {
	h.host.SetDown(true)
	h.s.lab.After(900*time.Millisecond, func() {
		h.known = true
		for _, e := range h.s.edges {
			for _, p := range e.edgePeers() {
				p.updateRelays()
			}
		}
	})
}

// hubWay is a present path to an edge: exactly one of them is set.
type hubWay struct {
	addr   netip.AddrPort
	stream *natlab.Stream
}

func (s *sim) addHub(access natlab.Link) *hub {
	h := &hub{s: s, ways: make(map[int]hubWay)}
	h.id, h.key = s.identity()
	h.addr = netip.MustParseAddr(fmt.Sprintf("198.51.100.%d", 10+len(s.hubs)))
	h.host = s.lab.Host(fmt.Sprintf("hub%d", len(s.hubs)+1))
	h.ifc = h.host.Attach(s.wan, access, netip.PrefixFrom(h.addr, 32))
	h.sock = h.host.Listen(tunnelPort, func(_ time.Time, d natlab.Datagram) { h.receive(hubWay{addr: d.From}, d.Data) })
	alt := (*natlab.Socket)(nil)
	alt = h.host.Listen(altPort, func(_ time.Time, d natlab.Datagram) {
		if len(d.Data) >= headLen && d.Data[0] == pktStun {
			_ = alt.Send(d.From, mapped(d), 0, false)
		}
	})
	h.host.ListenStream(tlsPort, func(st *natlab.Stream) {
		st.OnReceive(func(_ time.Time, data []byte) { h.receive(hubWay{stream: st}, data) })
	})
	s.hubs = append(s.hubs, h)
	return h
}

// mapped is the answer to a STUN request.
func mapped(d natlab.Datagram) []byte {
	b := append(head(pktMapped, 0, int(d.Data[1])), d.Data[headLen:]...)
	return appendAddr(b, d.From)
}

func (h *hub) send(w hubWay, b []byte) {
	if w.stream != nil {
		w.stream.Send(b)
	} else if w.addr.IsValid() {
		_ = h.sock.Send(w.addr, b, 0, false)
	}
}

func (h *hub) receive(from hubWay, b []byte) {
	if len(b) < headLen {
		return
	}
	origin, body := int(b[1]), b[headLen:]
	switch b[0] {
	case pktStun:
		h.send(from, mapped(natlab.Datagram{From: from.addr, Data: b}))
	case pktProbe:
		if int(b[2]) == h.id {
			h.send(from, answer(b, from.addr))
		}
	case pktKeepalive:
		h.ways[origin] = from
		h.send(from, head(pktKeepalive, h.id, origin))
	case pktRelay:
		// The real label is bound to the session; here a frame moves the path
		// as any authentic packet does.
		h.ways[origin] = from
		to, other := unlabel(binary.BigEndian.Uint64(body))
		if other == 0 {
			h.deliver(to, label(origin, 0), body[8:])
		} else if next := h.s.hubByID(other); next != nil {
			f := binary.BigEndian.AppendUint64(head(pktTransit, origin, next.id), label(to, h.id))
			h.send(hubWay{addr: netip.AddrPortFrom(next.addr, tunnelPort)}, append(f, body[8:]...))
		}
	case pktTransit:
		to, first := unlabel(binary.BigEndian.Uint64(body))
		h.deliver(to, label(origin, first), body[8:])
	}
}

func (h *hub) deliver(to int, l uint64, frame []byte) {
	h.relayed++
	h.send(h.ways[to], append(binary.BigEndian.AppendUint64(head(pktRelay, h.id, to), l), frame...))
}

// answer is the answer to a probe, with the address that it came from.
func answer(probe []byte, from netip.AddrPort) []byte {
	b := append(head(pktAnswer, int(probe[2]), int(probe[1])), probe[headLen:headLen+12]...)
	if from.IsValid() {
		b = appendAddr(b, from)
	}
	return b
}
