package stun

import (
	"io"
	"net/netip"
	"time"
)

// purpose is why something is asked.
type purpose uint8

const (
	askServer     purpose = iota // tunnel socket to a server
	askOther                     // tunnel socket to the other address of a server
	askHome                      // extra socket to the server of the next two
	askFilterBoth                // answer wanted from another address and port
	askFilterPort                // answer wanted from another port
	askSpread                    // extra socket to the other servers: port steps
	askHairpin                   // to our own mapped address
	askLife                      // extra socket, for the lifetime
	askLifePort                  // tunnel socket, answer wanted at the extra socket
)

// outcome is what became of a request.
type outcome uint8

const (
	waiting outcome = iota
	replied
	declined // an error, or an answer that shows that the server did not understand
	silent
)

// ask is one request with its retransmissions (RFC 8489 section 6.2.1).
type ask struct {
	f       *family
	why     purpose
	to      netip.AddrPort
	other   bool // from the extra socket
	opt     RequestOptions
	rto     time.Duration
	tx      TxID
	tries   int
	first   time.Time
	next    time.Time // when to send again, or to give up
	outcome outcome
	mapped  netip.AddrPort
	otherAt netip.AddrPort // OTHER-ADDRESS of the answer
	rtt     time.Duration
}

// ask sends a new request.
func (f *family) ask(now time.Time, a ask) *ask {
	a.f, a.first = f, now
	if a.rto == 0 {
		a.rto = rto
	}
	if _, err := io.ReadFull(f.d.cfg.Rand, a.tx[:]); err != nil {
		a.outcome = silent // without randomness nothing is asked
		return &a
	}
	f.asks = append(f.asks, &a)
	f.d.asks[a.tx] = &a
	a.send(now)
	return &a
}

func (a *ask) send(now time.Time) {
	a.tries++
	a.next = now.Add(time.Duration(a.tries) * a.rto)
	a.f.d.out = append(a.f.d.out, Send{To: a.to, Data: AppendRequest(nil, a.tx, a.opt), FromOther: a.other})
}

// tick repeats a request or gives it up.
func (a *ask) tick(now time.Time) {
	switch {
	case a.outcome != waiting || now.Before(a.next):
	case a.tries == 3:
		a.outcome = silent
	default:
		a.send(now)
	}
}

// receive takes a message with the transaction ID of this request. One that comes
// late still counts: it is what we asked for.
func (a *ask) receive(now time.Time, in ResponseIn) {
	from := unmap(in.From)
	if a.outcome == replied || a.outcome == declined {
		return
	}
	switch in.Message.Kind {
	case KindRequest:
		if a.why == askHairpin {
			a.outcome = replied
		}
		return
	case KindRefusal:
		if from == a.to {
			a.outcome = declined
		}
		return
	case KindResponse:
	default:
		return
	}
	if !a.expected(from, in.OnOther) {
		// Somebody else cannot know the transaction ID, so this is the server, which
		// answers as if the attribute were not there.
		if from == a.to && a.opt != (RequestOptions{}) {
			a.outcome = declined
		}
		return
	}
	a.outcome, a.mapped, a.rtt = replied, in.Message.Mapped, now.Sub(a.first)
	if o := in.Message.Other; usableOther(o, a.to) {
		a.otherAt = o
	}
}

// expected reports whether the answer comes from where it was wanted from, and
// where it was wanted.
func (a *ask) expected(from netip.AddrPort, onOther bool) bool {
	switch a.why {
	case askFilterBoth:
		return from.Addr() != a.to.Addr() && from.Port() != a.to.Port()
	case askFilterPort:
		return from.Addr() == a.to.Addr() && from.Port() != a.to.Port()
	case askLifePort:
		return from == a.to && onOther
	}
	return from == a.to
}

// usableOther reports whether OTHER-ADDRESS of a server may be asked: a server
// must not send us to multicast, or from the Internet into a private network.
func usableOther(o, server netip.AddrPort) bool {
	ip, s := o.Addr(), server.Addr()
	switch {
	case !ip.IsValid() || o.Port() == 0 || o.Port() == server.Port() || ip == s || ip.Is4() != s.Is4(),
		ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast(),
		ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return false
	case ip.IsLoopback():
		return s.IsLoopback()
	case ip.IsPrivate():
		return s.IsPrivate() || s.IsLoopback()
	}
	return true
}
