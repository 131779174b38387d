package nat

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"corax/dataplane/key"
	"corax/nat/stun"
)

const (
	latency = 10 * time.Millisecond // one way
	natLife = 60 * time.Second      // of a mapping without packets from inside
	lowTTL  = 8                     // what has less dies between two NATs
)

// internet carries datagrams between the nodes of one test, inside a bubble.
type internet struct {
	t     *testing.T
	ctx   context.Context // ends with the test
	talks sync.WaitGroup

	mu    sync.Mutex
	nodes []*node
	at    map[netip.Addr]*node
	cuts  map[[2]*node]bool // both ways: nothing direct passes
	mtu   int               // of every path, in bytes of UDP payload; what is larger vanishes
}

func newInternet(t *testing.T) *internet {
	return &internet{t: t, at: make(map[netip.Addr]*node), cuts: make(map[[2]*node]bool), mtu: 1472}
}

// run lets time pass until everything that is due then was done.
func (w *internet) run(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// within waits until ok says so, at most for d, and returns how long it took.
func (w *internet) within(d time.Duration, what string, ok func() bool) time.Duration {
	w.t.Helper()
	begin := time.Now()
	for {
		synctest.Wait()
		if ok() {
			return time.Since(begin)
		}
		if time.Since(begin) >= d {
			w.t.Fatalf("not within %v: %s", d, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// cut stops what goes directly between two nodes, or lets it pass again.
func (w *internet) cut(a, b *node, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cuts[[2]*node{a, b}], w.cuts[[2]*node{b, a}] = on, on
}

// fakeNAT is a NAT with one inside address. It filters by address and port, or
// as filter says.
type fakeNAT struct {
	public   netip.Addr
	filter   stun.Filtering
	perDest  bool // another port for each destination
	next     uint16
	mappings map[mapping]uint16
	open     map[opening]time.Time
}

type mapping struct {
	socket uint32
	to     netip.AddrPort // zero unless perDest
}

type opening struct {
	port   uint16
	remote netip.AddrPort
}

// out returns the address from which a packet goes on.
func (n *fakeNAT) out(socket uint32, to netip.AddrPort) netip.AddrPort {
	m := mapping{socket: socket}
	if n.perDest {
		m.to = to
	}
	port, ok := n.mappings[m]
	if !ok {
		port = 4500
		if n.perDest || socket != 0 {
			n.next += 7919 // no step that repeats in 16 bits can be guessed from three ports
			port = 1024 + n.next%60000
		}
		n.mappings[m] = port
	}
	n.open[opening{port, to}] = time.Now()
	return netip.AddrPortFrom(n.public, port)
}

// in reports whether a packet comes through, and to which socket.
func (n *fakeNAT) in(port uint16, from netip.AddrPort) (socket uint32, ok bool) {
	if !n.lets(port, from) {
		return 0, false
	}
	for m, p := range n.mappings {
		if p == port && (!n.perDest || m.to == from) {
			return m.socket, true
		}
	}
	return 0, false
}

// lets reports whether the filter lets a packet in.
func (n *fakeNAT) lets(port uint16, from netip.AddrPort) bool {
	for o, at := range n.open {
		if o.port != port || time.Since(at) > natLife {
			continue
		}
		switch {
		case o.remote == from, n.filter == stun.FilteringEndpointIndependent,
			n.filter == stun.FilteringAddressDependent && o.remote.Addr() == from.Addr():
			return true
		}
	}
	return false
}

// frame is what a datagram carries: a STUN message or one of WireGuard's, with a
// label when it is to be relayed.
type frame struct {
	label    uint64
	stun     []byte
	from, to key.Public // of WireGuard's
	kind     kind
	body     []byte
}

type kind int

const (
	initiation kind = iota + 1
	response
	data
)

// size is that of the UDP payload.
func (f *frame) size() int {
	n := len(f.stun)
	if f.kind != 0 {
		n = 32 + len(f.body)
	}
	if f.label != 0 {
		n += 8
	}
	return n
}

// encode is for a stream.
func (f *frame) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, f.label)
	b = append(b, byte(f.kind))
	b = append(append(b, f.from[:]...), f.to[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(f.stun)))
	return append(append(b, f.stun...), f.body...)
}

func decode(b []byte) (f frame, ok bool) {
	const head = 8 + 1 + 2*key.Size + 2
	if len(b) < head {
		return f, false
	}
	f.label, f.kind = binary.BigEndian.Uint64(b), kind(b[8])
	f.from, f.to = key.Public(b[9:9+key.Size]), key.Public(b[9+key.Size:9+2*key.Size])
	n := head + int(binary.BigEndian.Uint16(b[head-2:]))
	if n > len(b) {
		return f, false
	}
	if n > head {
		f.stun = slices.Clone(b[head:n])
	}
	f.body = slices.Clone(b[n:])
	return f, true
}

// send carries a datagram, or loses it.
func (w *internet) send(from *node, socket uint32, to netip.AddrPort, ttl int, f frame) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if from.down || from.blocked {
		return
	}
	src := netip.AddrPortFrom(from.addr, 4500+uint16(socket))
	switch {
	case to.Addr().Is6() && !from.addr6.IsValid():
		return
	case to.Addr().Is6():
		src = netip.AddrPortFrom(from.addr6, src.Port())
	case from.nat != nil:
		src = from.nat.out(socket, to)
	}
	dst := w.at[to.Addr()]
	if dst == nil || dst == from || to.Addr().IsPrivate() || w.cuts[[2]*node{from, dst}] || f.size() > w.mtu {
		return
	}
	if ttl != 0 && ttl < lowTTL && (from.nat != nil || dst.nat != nil) {
		return
	}
	time.AfterFunc(latency, func() { w.arrive(dst, src, to, f) })
}

func (w *internet) arrive(dst *node, src, to netip.AddrPort, f frame) {
	w.mu.Lock()
	socket, ok := uint32(to.Port()-4500), true
	if dst.nat != nil && to.Addr() == dst.nat.public {
		socket, ok = dst.nat.in(to.Port(), src)
	}
	dev := dst.dev
	if dst.down || dst.blocked || dev == nil {
		ok = false
	}
	w.mu.Unlock()
	if ok {
		dev.receive(Path{To: src, Socket: socket}, key.Public{}, f)
	}
}
