package forward

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"time"

	"corax/dataplane/netstack"
)

// idlePing is how long a program may pause between two pings.
const idlePing = 15 * time.Second

// ping knows whether this host lets us send pings.
type ping struct {
	mu  sync.Mutex
	why error // nil: it does
}

// probe tries.
func (p *ping) probe() {
	err := probePing()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.why = err
}

func (p *ping) problem() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.why == nil {
		return ""
	}
	return "pings of this node's own pods are answered with ICMP prohibited: " + p.why.Error() +
		" (sysctl net.ipv4.ping_group_range has to include the group of the agent)"
}

// Echo pings the real destination. It implements [netstack.SiteHandler].
func (f *Forwarder) Echo(e *netstack.Echo) {
	key := ends{netip.AddrPortFrom(e.From, e.ID), netip.AddrPortFrom(e.To, 0)}
	fl := f.pings.get(key)
	if fl == nil {
		if fl = f.newPing(e, key); fl == nil {
			return
		}
	}
	b := make([]byte, 8+len(e.Payload))
	b[0] = 8
	if !e.To.Is4() {
		b[0] = 128
	}
	binary.BigEndian.PutUint16(b[6:], e.Seq) // the kernel fills in the rest
	copy(b[8:], e.Payload)
	if err := fl.write(b); err != nil {
		f.count.datagrams.Add(1)
		if !fl.failed(e.Site(), err) {
			_ = fl.sock.Close()
		}
	}
}

func (f *Forwarder) newPing(e *netstack.Echo, key ends) *flow {
	target, ok := f.decide(e.To)
	if !ok {
		e.Site().Reject(e.Quote(), netstack.Prohibited)
		return nil
	}
	if r := f.pings.places.take(e.From); r != roomYes {
		f.refuse(r)
		return nil
	}
	sock, err := openPing(target)
	if err != nil {
		f.pings.places.release(e.From)
		switch {
		case errors.Is(err, errNoPing):
			f.count.noPing.Add(1)
			e.Site().Reject(e.Quote(), netstack.Prohibited)
		case unreachable(err):
			f.count.noRoute.Add(1)
			e.Site().Reject(e.Quote(), netstack.HostUnreachable)
		default:
			f.count.noSocket.Add(1)
		}
		return nil
	}
	f.count.pings.Add(1)
	site, from, to, id := e.Site(), e.From, e.To, e.ID
	return f.pings.start(site, &flow{
		ends: key, f: f, sock: sock, quote: e.Quote(), idle: func(bool) time.Duration { return idlePing },
		reply: func(b []byte) error {
			seq, payload, ok := parseEchoReply(b, to.Is4())
			if !ok {
				return nil // of another kind: not ours to pass on
			}
			return site.WriteEcho(to, from, id, seq, payload)
		},
	})
}

// parseEchoReply reads what an ICMP socket of the kernel gives: the message without
// an IP header. RFC 792, RFC 4443 section 4.2.
func parseEchoReply(b []byte, v4 bool) (seq uint16, payload []byte, ok bool) {
	kind := byte(129)
	if v4 {
		kind = 0
	}
	if len(b) < 8 || b[0] != kind || b[1] != 0 {
		return 0, nil, false
	}
	return binary.BigEndian.Uint16(b[6:]), b[8:], true
}
