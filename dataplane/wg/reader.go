package wg

import (
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"corax/dataplane"
)

// reader says what each datagram that arrives is, and whose. One goroutine at a
// time uses it.
type reader struct {
	b   *bind
	now int64 // arrival of the batch in Unix nanoseconds

	// The datagram at hand: how it came, and whose it must be when a stream or
	// a label says so.
	cur   way
	turn  uint64 // counts how often cur was set
	owner *peer
	from  netip.AddrPort // of the UDP datagram; none for a stream

	last  answer
	line  line
	out   outbox
	guest guest
}

// guest is the look-up of the last source: datagrams arrive in runs.
type guest struct {
	table *dataplane.AllowTable
	addr  netip.Addr
	ok    bool
}

// answer is the endpoint that was found for the last data message. Datagrams
// arrive in runs, so most need no other look-up.
type answer struct {
	gen     uint64
	index   uint32
	way     way
	turn    uint64        // of reader.cur when it was way
	ep      conn.Endpoint // nil: there is no such session
	peer    *peer
	path    *path   // set when ep is the peer itself
	source  *source // set when ep is one and the peer's path is pinned
	at      int64   // the arrival noted last
	packets uint64  // not yet in peer.received
}

// begin starts a batch.
func (r *reader) begin() { r.now = time.Now().UnixNano() }

// end ends a batch: what was kept back is counted and relayed.
func (r *reader) end() {
	r.last.count()
	r.flush()
}

// direct takes a datagram from a UDP socket.
func (r *reader) direct(data []byte, from netip.AddrPort, local netip.Addr, s Socket) ([]byte, conn.Endpoint) {
	if !r.admits(from.Addr()) {
		r.b.drops.add(dropNotAllowed, 1)
		return nil, nil
	}
	if c := &r.cur; c.to != from || c.local != local || c.socket != s || !c.direct() {
		// Not for each of a run: the next look at it would wait for the copy.
		r.came(way{to: from, local: local, socket: s})
	}
	r.owner, r.from = nil, from
	return r.take(data)
}

// came sets how the datagram at hand came.
func (r *reader) came(w way) {
	r.cur = w
	r.turn++
}

// admits reports whether an address may send to us.
func (r *reader) admits(a netip.Addr) bool {
	t := r.b.allow.Load()
	if t == nil {
		return true
	}
	if g := &r.guest; g.table != t || g.addr != a {
		*g = guest{table: t, addr: a, ok: t.Contains(a)}
	}
	return r.guest.ok
}

// take returns what the device shall have of a datagram, and what it shall take
// as its endpoint; nil when the datagram is not for the device.
func (r *reader) take(data []byte) ([]byte, conn.Endpoint) {
	kind := Classify(data)
	if kind == KindRelay {
		if data, kind = r.unwrap(data); data == nil {
			return nil, nil
		}
	}
	return data, r.endpoint(kind, data)
}

func (r *reader) endpoint(kind Kind, data []byte) conn.Endpoint {
	switch kind {
	case KindData:
		return r.data(data)
	case KindInitiation:
		return r.initiation(data)
	case KindResponse:
		return r.reply(index(data, offReceiverResponse))
	case KindCookieReply:
		return r.reply(index(data, offReceiver))
	default:
		r.pass(kind, data)
		return nil
	}
}

func (r *reader) pass(kind Kind, data []byte) {
	switch {
	case kind == KindUnknown:
		r.b.drops.add(dropUnknown, 1)
	case r.b.other == nil:
		r.b.drops.add(dropNoReceiver, 1)
	default:
		d := Datagram{
			Kind: kind, From: r.from, Local: r.cur.local, Socket: r.cur.socket, Stream: r.cur.stream, Label: r.cur.label, Data: data,
		}
		if r.owner != nil {
			d.Peer = r.owner.key
		}
		if r.cur.via != nil {
			d.Via = r.cur.via.key
		}
		r.b.other(d)
	}
}

// foreign reports, and counts, that a datagram is not p's although the stream or
// label that it came by says so. Otherwise whoever forwards another's packets
// that way would draw that peer's path to itself.
func (r *reader) foreign(p *peer) bool {
	if r.owner == nil || r.owner == p {
		return false
	}
	r.b.drops.add(dropOrigin, 1)
	return true
}

// data finds the endpoint of a data message by its receiver index.
func (r *reader) data(data []byte) conn.Endpoint {
	i := index(data, offReceiver)
	gen := r.b.table.gen.Load()
	a := &r.last
	if a.index != i || a.gen != gen || a.ep == nil || a.turn != r.turn && a.way != r.cur {
		a.count()
		*a = answer{gen: gen, index: i, way: r.cur}
		r.look(a)
	}
	a.turn = r.turn
	if a.ep == nil {
		r.b.drops.add(dropIndex, 1)
		return nil
	}
	if r.owner != nil && r.foreign(a.peer) {
		return nil
	}
	if len(data) > sizeKeepalive {
		a.packets++
	}
	if a.at != r.now { // once per batch and run: an atomic store costs more than the rest
		a.note(r.now)
	}
	return a.ep
}

// note notes when something came.
func (a *answer) note(now int64) {
	a.at = now
	if a.peer != nil {
		a.peer.heard.Store(now)
	}
	if a.path != nil {
		a.path.heard.Store(now)
	}
	if a.source != nil && !a.source.tell.Load() {
		a.source.tell.Store(true)
	}
}

// count adds the packets of a run.
func (a *answer) count() {
	if a.packets > 0 && a.peer != nil {
		a.peer.received.Add(a.packets)
	}
	a.packets = 0
}

// look finds the session and whether the datagram came over its peer's path.
func (r *reader) look(a *answer) {
	p, ok := r.b.table.session(a.index)
	switch {
	case !ok:
		return
	case p == nil:
		a.ep = newSource(a.way, r.now, nil)
		return
	}
	a.peer = p
	w := p.path.Load()
	if w != nil && w.took(&a.way) {
		a.ep, a.path = p, w
		return
	}
	if r.owner != nil && r.owner != p {
		a.ep = p // not for use: data tells that it is foreign
		return
	}
	// Not proven: the device sends to this source only if the message is
	// authentic. The same one serves all messages from there.
	s := p.spare.Load()
	if s == nil || s.way != a.way || s.base != w || s.used.Load() && !(w != nil && w.pinned) {
		s = newSource(a.way, r.now, p)
		p.spare.Store(s)
	}
	a.ep = s
	if w != nil && w.pinned {
		a.source = s
	}
}

// reply finds the peer of a handshake response or cookie reply by the index of
// our initiation.
func (r *reader) reply(i uint32) conn.Endpoint {
	p, ok := r.b.table.session(i)
	if !ok {
		r.b.drops.add(dropIndex, 1)
		return nil
	}
	if r.foreign(p) || !r.room() {
		return nil
	}
	if p != nil {
		p.heard.Store(r.now)
		if w := p.path.Load(); w != nil && w.took(&r.cur) {
			w.heard.Store(r.now)
		}
		p.answered(i)
	}
	return newSource(r.cur, r.now, p)
}

// initiation finds the peer of an initiation. One that comes over the path of
// a peer is most likely that peer's: the response will tell. A stream and a
// label name it.
func (r *reader) initiation(data []byte) conn.Endpoint {
	b := r.b
	if !b.opener.mac1.check(data) {
		b.drops.add(dropMAC1, 1)
		return nil
	}
	p := r.owner
	if p == nil {
		p = b.table.at(r.cur.spot())
	}
	if p != nil && r.settled(p, data) {
		return nil
	}
	if r.owner != nil {
		if !r.room() {
			return nil
		}
		p.heard.Store(r.now)
		return newSource(r.cur, r.now, p)
	}
	if p != nil || !b.limiter.Allow() {
		// Where few may pass, strangers who come too fast must not take the
		// place of peers; elsewhere wireguard-go answers them with cookies.
		if p == nil && b.shakes != nil {
			b.drops.add(dropBusy, 1)
			return nil
		}
		if !r.room() {
			return nil
		}
		return newSource(r.cur, r.now, nil)
	}
	k, ok := b.opener.static(data)
	if !ok {
		b.drops.add(dropInitiation, 1)
		return nil
	}
	if p = b.table.get(k); p == nil {
		b.drops.add(dropPeer, 1)
		return nil
	}
	if r.settled(p, data) || !r.room() {
		return nil
	}
	p.heard.Store(r.now)
	return newSource(r.cur, r.now, p)
}

// room reports whether wireguard-go may have one handshake message more, and
// counts one that it may not.
func (r *reader) room() bool {
	if r.b.shakes == nil || r.b.shakes.Allow() {
		return true
	}
	r.b.drops.add(dropBusy, 1)
	return false
}

// settled reports whether an initiation of p needs nothing of wireguard-go: a
// copy of one that was answered, or one that crossed ours, which goes first.
func (r *reader) settled(p *peer, data []byte) bool {
	b, now := r.b, time.Unix(0, r.now)
	if msg := p.again(data, &r.cur, now); msg != nil {
		b.drops.add(dropCopy, 1)
		b.write([][]byte{msg}, &r.cur)
		return true
	}
	if !p.yields(b.opener.identity, now) {
		return false
	}
	b.drops.add(dropCrossed, 1)
	if w := p.path.Load(); w != nil && w.ready() {
		if msg := p.crossed(); msg != nil {
			b.write([][]byte{msg}, &w.way)
		}
	}
	return true
}

// line is the label that was found for the last relay frame, and what its pair
// may still pass.
type line struct {
	table *labelTable
	label Label
	found *label // nil: there is no such label
	room  int64
	fresh bool // room was asked for in this batch
}

// unwrap takes a relay frame: it relays it, drops it, or returns what is in it
// for us.
func (r *reader) unwrap(frame []byte) ([]byte, Kind) {
	l := &r.line
	if t, n := r.b.relays.table.Load(), frameLabel(frame); l.table != t || l.label != n || t == nil {
		*l = line{table: t, label: n}
		if t != nil {
			l.found = (*t)[n]
		}
	}
	x := l.found
	if x == nil {
		r.b.drops.add(dropLabel, 1)
		return nil, KindUnknown
	}
	if !x.from.sendsFrom(&r.cur) {
		r.dropFrame(x, dropHop)
		return nil, KindUnknown
	}
	inner := frame[relayHeader:]
	kind := Classify(inner)
	if kind == KindUnknown || kind == KindRelay {
		r.dropFrame(x, dropContent)
		return nil, KindUnknown
	}
	if x.out != 0 {
		r.relay(x, frame)
		return nil, KindUnknown
	}
	r.came(way{via: x.from, label: l.label})
	r.owner = x.to
	return inner, kind
}

func (r *reader) dropFrame(x *label, why drop) {
	r.b.drops.add(why, 1)
	if x.pair != nil {
		x.pair.drops.Add(1)
	}
}

// relay changes the label of a frame and puts it among those that leave at the
// end of the batch.
func (r *reader) relay(x *label, frame []byte) {
	w := x.to.path.Load()
	switch {
	case w == nil || w.via != nil:
		r.dropFrame(x, dropNoHop)
		return
	case w.same(&r.cur):
		r.dropFrame(x, dropReflect)
		return
	}
	l := &r.line
	if !l.fresh {
		l.fresh, l.room = true, r.b.fair.room(x.pair)
	}
	size := int64(len(frame))
	x.pair.offered.Add(uint64(size))
	if l.room < size {
		r.dropFrame(x, dropShare)
		return
	}
	l.room -= size
	putLabel(frame, x.out)
	r.out.add(w, x.pair, frame)
}
