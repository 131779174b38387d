package wg

import (
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"corax/dataplane/internal/udpbatch"
)

// Send sends encrypted datagrams to where the endpoint's peer is reached now.
func (b *bind) Send(bufs [][]byte, ep conn.Endpoint) error {
	if len(bufs) == 0 {
		return nil
	}
	switch e := ep.(type) {
	case *peer: // it last sent over its path
		if e.from.Load() != nil {
			e.from.Store(nil)
		}
		return b.sendPeer(bufs, e)
	case *source:
		return b.sendSource(bufs, e)
	default:
		return conn.ErrWrongEndpointType
	}
}

func (b *bind) sendPeer(bufs [][]byte, p *peer) error {
	msg := bufs[0]
	kind := Classify(msg)
	switch kind {
	case KindData:
		if i := index(msg, offReceiver); p.remote.Load() != i {
			p.remote.Store(i)
			p.initiated.Store(false)
		}
		if n := countData(bufs); n > 0 {
			b.gate.passed(p, n)
		}
	case KindInitiation:
		b.table.note(p, index(msg, offSender))
		p.initiated.Store(true)
		p.initiations.Add(1)
		b.want(p, b.gate.now())
	case KindResponse:
		b.table.note(p, index(msg, offSender))
	}
	w := p.path.Load()
	if w != nil && w.ready() {
		if kind == KindInitiation {
			b.initiate(p, msg, &w.way)
			return nil
		}
		b.write(bufs, &w.way)
		return nil
	}
	if kind == KindInitiation {
		b.keep(p, msg)
		return nil
	}
	b.drops.add(dropNoPath, len(bufs))
	return errNoPath
}

// sendSource sends to an endpoint that wireguard-go took from a packet, or that
// an operator set. Except for a cookie reply that means the device trusts it.
func (b *bind) sendSource(bufs [][]byte, s *source) error {
	msg := bufs[0]
	kind := Classify(msg)
	if kind == KindCookieReply {
		b.write(bufs, &s.way)
		return nil
	}
	p := s.peer.Load()
	if kind == KindResponse && p != nil && !p.mac1.check(msg) {
		// The initiation was not of the peer that the way names.
		if !s.direct() {
			b.drops.add(dropOrigin, len(bufs))
			return nil
		}
		p = nil
	}
	if p == nil {
		if p = b.table.identify(msg, s.spot()); p != nil {
			s.peer.Store(p)
		}
	}
	if p == nil { // a peer that only the user API knows
		if kind == KindInitiation || kind == KindResponse {
			b.table.note(nil, index(msg, offSender))
		}
		b.write(bufs, &s.way)
		return nil
	}
	if !s.used.Swap(true) || s.tell.Load() {
		b.prove(p, s)
	}
	if kind == KindResponse { // answers what came from s, pinned or not
		b.table.note(p, index(msg, offSender))
		p.answers(msg, &s.way, time.Now())
		b.write(bufs, &s.way)
		return nil
	}
	return b.sendPeer(bufs, p)
}

// prove moves p's path to s, unless another was chosen since s came in or the
// path is pinned: then somebody else decides.
func (b *bind) prove(p *peer, s *source) {
	tell := s.tell.Swap(false)
	w := p.path.Load()
	if w != nil && w.pinned {
		if !s.named || s.base == w {
			b.table.cameBy(p, &s.way, w)
		}
		if tell && b.proven != nil && !w.took(&s.way) {
			if p.news(&s.way, b.gate.now()) {
				b.proven(p.key, s.public())
			}
		}
		return
	}
	from := &w
	if s.named {
		from = &s.base
	}
	if b.table.setPath(p, newPath(s.way, false, s.at), from) {
		b.released(p)
	}
}

// want tells Config.Wanted of p, unless that was lately; now is the gate's.
func (b *bind) want(p *peer, now time.Duration) {
	if b.wanted != nil && due(&p.wanted, now, tellEvery) {
		b.wanted(p.key)
	}
}

// news reports whether Config.Proven is to be told that p came by w, now by the
// gate's clock: of one way every tellEvery, of another than told last after tellOther.
func (p *peer) news(w *way, now time.Duration) bool {
	gap := tellEvery
	if by := p.toldBy.Load(); by == nil || !by.same(w) {
		gap = tellOther
	}
	if !due(&p.told, now, gap) {
		return false
	}
	by := *w
	p.toldBy.Store(&by)
	return true
}

// due reports whether last, zero meaning never, is gap ago, and makes it now if so.
func due(last *atomic.Int64, now, gap time.Duration) bool {
	was := last.Load()
	return (was == 0 || int64(now)-was >= int64(gap)) && last.CompareAndSwap(was, max(1, int64(now)))
}

// countData counts the messages that carry a packet: not keepalives.
func countData(bufs [][]byte) int {
	n := 0
	for _, m := range bufs {
		if len(m) > sizeKeepalive {
			n++
		}
	}
	return n
}

// keep holds p's newest initiation until it has a path.
func (b *bind) keep(p *peer, msg []byte) {
	p.mu.Lock()
	if p.kept.n > 0 {
		b.drops.add(dropHandshakeExpired, 1)
	}
	p.kept.at = time.Now()
	p.kept.n = copy(p.kept.msg[:], msg)
	p.mu.Unlock()
	// The path may have come between the look and the lock.
	if w := p.path.Load(); w != nil && w.ready() {
		b.release(p)
	}
}

// released sends what keep holds for p, and for the peers behind p: p has a path
// now.
func (b *bind) released(p *peer) {
	b.release(p)
	for _, q := range b.table.behind(p) {
		b.release(q)
	}
}

// release sends what keep holds, if it is not too old and there is a path.
func (b *bind) release(p *peer) {
	w := p.path.Load()
	if w == nil || !w.ready() {
		return
	}
	p.mu.Lock()
	k := p.kept
	p.kept.n = 0
	p.mu.Unlock()
	if k.n == 0 {
		return
	}
	if time.Since(k.at) > keepHandshake {
		b.drops.add(dropHandshakeExpired, 1)
		return
	}
	b.initiate(p, k.msg[:k.n], &w.way)
}

// scratch is the memory of one write.
type scratch struct {
	msgs   []udpbatch.Message
	header [relayHeader]byte
	frames [][]byte // for a stream, which takes no header apart
	memory []byte   // that frames lie in
}

// write sends datagrams one way.
func (b *bind) write(bufs [][]byte, w *way) {
	x := b.writes.Get().(*scratch)
	defer b.writes.Put(x)
	var header []byte
	if w.via != nil {
		header = x.header[:]
		putLabel(header, w.label)
		hub := w.via.path.Load()
		if hub == nil || hub.via != nil {
			b.drops.add(dropNoPath, len(bufs))
			return
		}
		w = &hub.way
	}
	if w.stream != nil {
		if header != nil {
			bufs = x.frame(header, bufs)
		}
		if sent := w.stream.Send(bufs); sent < len(bufs) {
			b.drops.add(dropStream, len(bufs)-sent)
		}
		return
	}
	c := b.conn(w)
	if c == nil {
		b.drops.add(b.noSocket(w), len(bufs))
		return
	}
	x.msgs = x.msgs[:0]
	for _, m := range bufs {
		x.msgs = append(x.msgs, udpbatch.Message{To: w.to, Local: w.local, Header: header, Payload: m})
	}
	c.Write(x.msgs)
	clear(x.msgs)
}

// frame joins the header to each datagram.
func (x *scratch) frame(header []byte, bufs [][]byte) [][]byte {
	x.frames, x.memory = x.frames[:0], x.memory[:0]
	size := 0
	for _, m := range bufs {
		size += len(header) + len(m)
	}
	if cap(x.memory) < size {
		x.memory = make([]byte, 0, size)
	}
	for _, m := range bufs {
		at := len(x.memory)
		x.memory = append(append(x.memory, header...), m...)
		x.frames = append(x.frames, x.memory[at:])
	}
	return x.frames
}

// conn returns the socket of a direct way; nil when there is none, or nothing may
// be sent there.
func (b *bind) conn(w *way) *udpbatch.Conn {
	if !b.allow.Load().Contains(w.to.Addr()) {
		return nil
	}
	if w.socket != 0 {
		if e := (*b.extras.open.Load())[w.socket]; e != nil {
			return e.sock
		}
		return nil
	}
	s := b.socks.Load()
	switch {
	case s == nil:
		return nil
	case w.to.Addr().Is4():
		return s.v4
	default:
		return s.v6
	}
}

// noSocket is why conn found none.
func (b *bind) noSocket(w *way) drop {
	if !b.allow.Load().Contains(w.to.Addr()) {
		return dropDestination
	}
	if w.socket != 0 {
		return dropSocket
	}
	return dropNoFamily
}
