package wg

import (
	"net/netip"
	"sync/atomic"
	"time"

	"corax/dataplane/key"
)

// Label names a flow at one hop of a relay: 56 bits. Zero is none.
type Label uint64

// Socket names a UDP socket of the device. Zero is the tunnel socket of the
// address's family; OpenSockets makes others.
type Socket uint32

// A Stream carries datagrams to one peer over TCP. Streams are compared, so a
// pointer must be inside.
type Stream interface {
	// Send sends the datagrams, never blocks, and returns how many it took:
	// the others are dropped, as when its queue is full. It keeps none of the
	// memory. It is called by several goroutines at once.
	Send(datagrams [][]byte) (sent int)
}

// Path is one way to a peer. Exactly one of To, Stream, and Via with Label is
// set; the zero Path is none.
type Path struct {
	// To is the peer's address. Local is ours; zero lets the kernel choose, and
	// a path that is not pinned learns it from the peer. Socket is what the
	// peer is reached from.
	To     netip.AddrPort
	Local  netip.Addr
	Socket Socket
	// Stream leads to the peer itself.
	Stream Stream
	// Via is the peer that relays, over its own path, which must not be a relay
	// again. Label is what it knows the peer by.
	Via   key.Public
	Label Label
}

// IsZero reports whether the path is none.
func (p Path) IsZero() bool { return p == Path{} }

// way is a Path as look-ups compare it, of what is sent or of what came.
type way struct {
	to     netip.AddrPort
	local  netip.Addr
	socket Socket
	stream Stream
	via    *peer
	label  Label
}

// spot is where a direct peer is reached, whatever address of ours it uses.
type spot struct {
	to     netip.AddrPort
	socket Socket
}

func (w *way) direct() bool { return w.via == nil && w.stream == nil }

func (w *way) spot() spot { return spot{w.to, w.socket} }

// same reports whether both lead to the same place.
func (w *way) same(o *way) bool {
	return w.to == o.to && w.socket == o.socket && w.stream == o.stream && w.via == o.via && w.label == o.label
}

func (w *way) public() Path {
	p := Path{To: w.to, Local: w.local, Socket: w.socket, Stream: w.stream, Label: w.label}
	if w.via != nil {
		p.Via = w.via.key
	}
	return p
}

// path is where a peer's datagrams go. It is immutable but for heard.
type path struct {
	way
	// pinned: only SetPath moves it.
	pinned bool
	// heard is when something for this peer last came that way, in Unix
	// nanoseconds; zero: nothing yet. Alone it proves nothing.
	heard atomic.Int64
}

func newPath(w way, pinned bool, heard int64) *path {
	p := &path{way: w, pinned: pinned}
	p.heard.Store(heard)
	return p
}

// took reports whether what came by o came over the path.
func (p *path) took(o *way) bool {
	return p.same(o) && (p.local == o.local || p.pinned && !p.local.IsValid())
}

// ready reports whether something can be sent over the path now.
func (p *path) ready() bool {
	if p.via == nil {
		return true
	}
	v := p.via.path.Load()
	return v != nil && v.via == nil
}

// SetPath makes p the path of a peer. Its session goes on. With pin only the
// next SetPath moves it: packets of the peer that come another way are accepted,
// and Config.Proven is told. Without pin a packet that authenticates from
// elsewhere moves the path. The zero Path takes the path away. Unknown peers, and
// paths that nothing can be sent over, are ignored.
func (d *Device) SetPath(k key.Public, p Path, pin bool) {
	x := d.table.get(k)
	if x == nil {
		return
	}
	if p.IsZero() {
		d.table.setPath(x, nil, nil)
		return
	}
	if w, ok := d.way(x, p); ok {
		d.setWay(x, w, pin)
	}
}

// way checks a path of x.
func (d *Device) way(x *peer, p Path) (way, bool) {
	w := way{stream: p.Stream, label: p.Label}
	n := 0
	if p.To != (netip.AddrPort{}) {
		n++
		w.to, w.local, w.socket = unmap(p.To), p.Local.Unmap(), p.Socket
		if !w.to.IsValid() || w.to.Port() == 0 || w.to.Addr().IsUnspecified() {
			return way{}, false
		}
	}
	if p.Stream != nil {
		n++
	}
	if !p.Via.IsZero() {
		n++
		w.via = d.table.get(p.Via)
		if w.via == nil || w.via == x || p.Label == 0 || p.Label > maxLabel {
			return way{}, false
		}
	}
	return w, n == 1 && (w.via != nil || p.Label == 0) && (w.to.IsValid() || p.Socket == 0)
}

func (d *Device) setWay(x *peer, w way, pin bool) {
	heard := int64(0)
	if old := x.path.Load(); old != nil && old.same(&w) && (!w.local.IsValid() || w.local == old.local) {
		if old.pinned == pin {
			return // keep what is known of it
		}
		w.local, heard = old.local, old.heard.Load()
	}
	if d.table.setPath(x, newPath(w, pin, heard), nil) {
		d.bind.released(x)
	}
}

// Path returns the path of a peer and when its last datagram came over it; zero:
// none did. That is told by the session's index alone, so that who sees the
// traffic can forge it. ok is false when there is no path.
func (d *Device) Path(k key.Public) (p Path, heard time.Time, ok bool) {
	a, ok := d.Activity(k)
	return a.Path, a.Heard, ok && !a.Path.IsZero()
}

// Activity is what goes on between us and one peer.
type Activity struct {
	// Sent and Received count the packets, not keepalives, that went to the peer
	// and came from it since it is one. Of what came forgeries are part.
	Sent, Received uint64
	// Path and Heard are as Device.Path returns them.
	Path  Path
	Heard time.Time
}

// Activity returns what goes on with a peer; false when there is no such peer.
func (d *Device) Activity(k key.Public) (Activity, bool) {
	p := d.table.get(k)
	if p == nil {
		return Activity{}, false
	}
	a := Activity{Sent: p.sent.Load(), Received: p.received.Load()}
	if w := p.path.Load(); w != nil {
		a.Path, a.Heard = w.public(), unixTime(w.heard.Load())
	}
	return a, true
}

// EndStream takes the paths away that lead over a stream which has ended.
func (d *Device) EndStream(s Stream) {
	for _, p := range d.table.all() {
		if w := p.path.Load(); w != nil && w.stream == s {
			d.table.setPath(p, nil, &w)
		}
		if from := p.from.Load(); from != nil && from.stream == s {
			p.from.CompareAndSwap(from, nil)
		}
		if by := p.toldBy.Load(); by != nil && by.stream == s {
			p.toldBy.CompareAndSwap(by, nil)
		}
	}
}
