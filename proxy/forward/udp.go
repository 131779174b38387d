package forward

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"corax/dataplane/netstack"
)

// How long a flow may rest: a question to a name server, one that nobody answered,
// and one that goes both ways.
const (
	idleDNS    = 10 * time.Second
	idleOneWay = 60 * time.Second
	idleTwoWay = 180 * time.Second
)

func idleOf(port uint16) func(twoWay bool) time.Duration {
	return func(twoWay bool) time.Duration {
		switch {
		case port == 53:
			return idleDNS
		case twoWay:
			return idleTwoWay
		default:
			return idleOneWay
		}
	}
}

// UDP passes a datagram to its real destination. It implements
// [netstack.SiteHandler].
func (f *Forwarder) UDP(d *netstack.Datagram) {
	e := ends{d.From, d.To}
	fl := f.flows.get(e)
	if fl == nil {
		if fl = f.newFlow(d); fl == nil {
			return
		}
	}
	err := fl.write(d.Payload)
	switch {
	case err == nil:
	case errors.Is(err, net.ErrClosed):
		f.count.datagrams.Add(1) // it ended just now; the next one opens it again
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOBUFS):
		f.count.datagrams.Add(1)
	default:
		// An answer to an earlier one. This one is lost, as it would have been.
		f.count.datagrams.Add(1)
		if !fl.failed(d.Site(), err) {
			_ = fl.sock.Close()
		}
	}
}

func (f *Forwarder) newFlow(d *netstack.Datagram) *flow {
	target, ok := f.decide(d.To.Addr())
	if !ok {
		d.Site().Reject(d.Quote(), netstack.Prohibited)
		return nil
	}
	if r := f.flows.places.take(d.From.Addr()); r != roomYes {
		f.refuse(r)
		return nil
	}
	// A connected socket, so that the kernel tells of ICMP errors. To connect one
	// sends nothing and does not wait.
	sock, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(target, d.To.Port())))
	if err != nil {
		f.flows.places.release(d.From.Addr())
		if unreachable(err) {
			f.count.noRoute.Add(1)
			d.Site().Reject(d.Quote(), netstack.HostUnreachable)
		} else {
			f.count.noSocket.Add(1)
		}
		return nil
	}
	f.count.flows.Add(1)
	site, from, to := d.Site(), d.From, d.To
	return f.flows.start(site, &flow{
		ends: ends{from, to}, f: f, sock: sock, quote: d.Quote(), idle: idleOf(to.Port()),
		reply: func(b []byte) error { return site.WriteUDP(to, from, b) },
	})
}

// Lost ends a flow whose other end has no socket any more, so that the destination
// is told when it sends again. It implements [netstack.SiteHandler].
func (f *Forwarder) Lost(l netstack.Lost) {
	if fl := f.flows.get(ends{l.To, l.From}); fl != nil {
		_ = fl.sock.Close()
	}
}
