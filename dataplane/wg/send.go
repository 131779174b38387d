package wg

import (
	"net/netip"
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
	case *peer:
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
	case KindResponse:
		b.table.note(p, index(msg, offSender))
	}
	w := p.path.Load()
	if w != nil {
		if kind == KindInitiation {
			p.await(msg, time.Now())
		}
		b.write(bufs, w.addr, w.local)
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
		b.write(bufs, s.addr, s.local)
		return nil
	}
	p := s.peer.Load()
	if p == nil {
		if p = b.table.identify(msg, s.addr); p != nil {
			s.peer.Store(p)
		}
	}
	if p == nil { // a peer that only the user API knows
		if kind == KindInitiation || kind == KindResponse {
			b.table.note(nil, index(msg, offSender))
		}
		b.write(bufs, s.addr, s.local)
		return nil
	}
	if !s.used.Swap(true) {
		b.prove(p, s)
	}
	if kind == KindResponse { // answers what came from s
		b.table.note(p, index(msg, offSender))
		p.overtaken()
		b.write(bufs, s.addr, s.local)
		return nil
	}
	return b.sendPeer(bufs, p)
}

// prove moves p's path to s, unless another was chosen since s came in.
func (b *bind) prove(p *peer, s *source) {
	var from **path
	if s.named {
		from = &s.base
	}
	b.table.setPath(p, newPath(s.addr, s.local, s.at), from)
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
	if p.path.Load() != nil {
		b.release(p)
	}
}

// release sends what keep holds, if it is not too old.
func (b *bind) release(p *peer) {
	p.mu.Lock()
	k := p.kept
	p.kept.n = 0
	p.mu.Unlock()
	w := p.path.Load()
	if k.n == 0 || w == nil {
		return
	}
	if time.Since(k.at) > keepHandshake {
		b.drops.add(dropHandshakeExpired, 1)
		return
	}
	p.await(k.msg[:k.n], time.Now())
	b.write([][]byte{k.msg[:k.n]}, w.addr, w.local)
}

// write sends datagrams to one address from one of ours.
func (b *bind) write(bufs [][]byte, to netip.AddrPort, local netip.Addr) {
	s := b.socks.Load()
	var c *udpbatch.Conn
	switch {
	case s == nil:
	case to.Addr().Is4():
		c = s.v4
	default:
		c = s.v6
	}
	if c == nil {
		b.drops.add(dropNoFamily, len(bufs))
		return
	}
	scratch := b.writes.Get().(*[]udpbatch.Message)
	msgs := (*scratch)[:0]
	for _, m := range bufs {
		msgs = append(msgs, udpbatch.Message{To: to, Local: local, Payload: m})
	}
	c.Write(msgs)
	clear(msgs)
	*scratch = msgs
	b.writes.Put(scratch)
}
