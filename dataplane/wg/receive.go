package wg

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"corax/dataplane/internal/udpbatch"
)

// receiver is the receive loop of one socket. Only the device's goroutine for
// it calls receive.
type receiver struct {
	b      *bind
	sock   *udpbatch.Conn
	closed <-chan struct{}
	timer  *time.Timer
	grams  []udpbatch.Datagram
	now    int64 // arrival of the batch in Unix nanoseconds

	last answer
}

// answer is the endpoint that was found for the last data message. Datagrams
// arrive in runs, so most need no other look-up.
type answer struct {
	gen   uint64
	index uint32
	from  netip.AddrPort
	local netip.Addr
	ep    conn.Endpoint // nil: there is no such session
	peer  *peer
	path  *path // set when ep is the peer itself
	at    int64 // the arrival noted last
}

func newReceiver(b *bind, c *udpbatch.Conn, closed <-chan struct{}) *receiver {
	r := &receiver{b: b, sock: c, closed: closed, grams: make([]udpbatch.Datagram, batchSize)}
	r.timer = time.NewTimer(time.Hour)
	r.timer.Stop()
	return r
}

// receive fills bufs with WireGuard messages and hands on everything else. It
// returns at least one, or net.ErrClosed after Close.
func (r *receiver) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	for {
		if !r.b.in.wait(r.timer, r.closed) {
			return 0, net.ErrClosed
		}
		got, err := r.sock.Read(r.grams[:min(len(bufs), len(r.grams))])
		if errors.Is(err, net.ErrClosed) {
			return 0, net.ErrClosed
		}
		if err != nil {
			return 0, err
		}
		r.now = time.Now().UnixNano()
		n, packets := 0, 0
		for i := range r.grams[:got] {
			g := &r.grams[i]
			ep := r.endpoint(g)
			if ep == nil {
				continue
			}
			if len(g.Data) > len(bufs[n]) {
				r.b.drops.add(dropTooBig, 1)
				continue
			}
			sizes[n] = copy(bufs[n], g.Data)
			eps[n] = ep
			n++
			if len(g.Data) > sizeKeepalive && g.Data[0] == 4 {
				packets++
			}
		}
		if packets > 0 {
			r.b.in.add(packets)
		}
		if n > 0 {
			return n, nil
		}
	}
}

// endpoint returns what the device shall take as the datagram's endpoint; nil
// when the datagram is not for the device.
func (r *receiver) endpoint(g *udpbatch.Datagram) conn.Endpoint {
	switch kind := Classify(g.Data); kind {
	case KindData:
		return r.data(g)
	case KindInitiation:
		return r.initiation(g)
	case KindResponse:
		return r.reply(g, index(g.Data, offReceiverResponse))
	case KindCookieReply:
		return r.reply(g, index(g.Data, offReceiver))
	default:
		r.pass(kind, g)
		return nil
	}
}

func (r *receiver) pass(kind Kind, g *udpbatch.Datagram) {
	switch {
	case kind == KindUnknown:
		r.b.drops.add(dropUnknown, 1)
	case r.b.other == nil:
		r.b.drops.add(dropNoReceiver, 1)
	default:
		r.b.other(Datagram{Kind: kind, From: g.From, Local: g.Local, Data: g.Data})
	}
}

// data finds the endpoint of a data message by its receiver index.
func (r *receiver) data(g *udpbatch.Datagram) conn.Endpoint {
	i := index(g.Data, offReceiver)
	gen := r.b.table.gen.Load()
	a := &r.last
	if a.gen != gen || a.index != i || a.from != g.From || a.local != g.Local || a.ep == nil {
		*a = answer{gen: gen, index: i, from: g.From, local: g.Local}
		r.look(a)
	}
	if a.ep == nil {
		r.b.drops.add(dropIndex, 1)
		return nil
	}
	if a.at != r.now { // once per batch and run: an atomic store costs more than the rest
		a.at = r.now
		if a.peer != nil {
			a.peer.heard.Store(r.now)
		}
		if a.path != nil {
			a.path.heard.Store(r.now)
		}
	}
	return a.ep
}

// look finds the session and whether the datagram came over its peer's path.
func (r *receiver) look(a *answer) {
	p, ok := r.b.table.session(a.index)
	switch {
	case !ok:
		return
	case p == nil:
		a.ep = newSource(a.from, a.local, r.now, nil)
		return
	}
	a.peer = p
	w := p.path.Load()
	if w != nil && w.addr == a.from && w.local == a.local {
		a.ep, a.path = p, w
		return
	}
	// Not proven: the device sends to this source only if the message is
	// authentic. The same one serves all messages from there.
	s := p.spare.Load()
	if s == nil || s.addr != a.from || s.local != a.local || s.base != w || s.used.Load() {
		s = newSource(a.from, a.local, r.now, p)
		p.spare.Store(s)
	}
	a.ep = s
}

// reply finds the peer of a handshake response or cookie reply by the index of
// our initiation.
func (r *receiver) reply(g *udpbatch.Datagram, i uint32) conn.Endpoint {
	p, ok := r.b.table.session(i)
	if !ok {
		r.b.drops.add(dropIndex, 1)
		return nil
	}
	if p != nil {
		p.heard.Store(r.now)
		p.answered(i)
	}
	return newSource(g.From, g.Local, r.now, p)
}

// initiation finds the peer of an initiation. One that comes over the path of
// a peer is most likely that peer's: the response will tell.
func (r *receiver) initiation(g *udpbatch.Datagram) conn.Endpoint {
	b := r.b
	if !b.opener.mac1.check(g.Data) {
		b.drops.add(dropMAC1, 1)
		return nil
	}
	p := b.table.at(g.From)
	if p != nil && p.yields(b.opener.identity, time.Unix(0, r.now)) {
		b.drops.add(dropCrossed, 1)
		return nil
	}
	if p != nil || !b.limiter.Allow() {
		return newSource(g.From, g.Local, r.now, nil)
	}
	k, ok := b.opener.static(g.Data)
	if !ok {
		b.drops.add(dropInitiation, 1)
		return nil
	}
	if p = b.table.get(k); p == nil {
		b.drops.add(dropPeer, 1)
		return nil
	}
	p.heard.Store(r.now)
	return newSource(g.From, g.Local, r.now, p)
}
