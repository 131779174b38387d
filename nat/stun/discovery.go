package stun

import (
	"crypto/rand"
	"io"
	"net/netip"
	"slices"
	"time"
)

const (
	// rto is the first retransmission timeout (RFC 8489 section 6.2.1). A request
	// is sent three times and given up after 6 rto: 3 s.
	rto = 500 * time.Millisecond
	// hairpinRTO is that for packets that only go to our own NAT and back.
	hairpinRTO = 150 * time.Millisecond
	// maxServers of a family are asked.
	maxServers = 8
)

// Config says whom a [Discovery] asks.
type Config struct {
	// Servers are asked in this order; of each IP version the first 8 count. With
	// two of different addresses, or one that has OTHER-ADDRESS, the mapping
	// behaviour becomes known; the filtering behaviour needs OTHER-ADDRESS.
	Servers []netip.AddrPort
	// Local are this host's addresses with the port of the tunnel socket: a server
	// that sees one of them says that there is no NAT.
	Local []netip.AddrPort
	// NoOther says that no extra socket can be had. What needs one stays unknown.
	NoOther bool
	// MaxLifetime is the longest idle time to try when the lifetime of a mapping is
	// measured, which takes about three times as long; 5 minutes is reasonable.
	// Zero: it is not measured.
	MaxLifetime time.Duration
	// Rand is where transaction IDs come from; nil means crypto/rand. Somebody who
	// can predict it can forge answers.
	Rand io.Reader
}

// Event is what a [Discovery] is told: [Tick] or [ResponseIn].
type Event interface{ event() }

// Tick says that time has passed.
type Tick struct{}

// ResponseIn is a STUN message that came in on the tunnel socket or the extra
// socket: a response or a refusal, or a request (a hairpinned one is ours). What
// is not meant for the Discovery is ignored.
type ResponseIn struct {
	Message Message
	From    netip.AddrPort
	OnOther bool // it came in on the extra socket
}

func (Tick) event()       {}
func (ResponseIn) event() {}

// Action is what the owner of a [Discovery] is to do: [Send].
type Action interface{ action() }

// Send says that Data is to be sent to To from the tunnel socket or the extra
// socket. The extra socket has a port of its own that was not used for anything
// in the last minutes, and belongs to this Discovery until it is done; the owner
// opens one of each IP version at the first such action.
type Send struct {
	To        netip.AddrPort
	Data      []byte // the owner's to keep
	FromOther bool
}

func (Send) action() {}

// Discovery learns what kind of NAT is before the tunnel socket. It is a pure
// machine for one goroutine: the owner sends what [Discovery.Step] returns, and
// calls it with each STUN message that comes in and with a [Tick] when
// [Discovery.Deadline] has come. What it knows can be had at any time. The first
// answers are there after a round trip, all but the lifetime in less than 10 s.
//
// Of each request it makes no more than three copies and only the configured
// servers, the other address of one, and our own mapped address get any.
type Discovery struct {
	cfg      Config
	families [2]family // IPv4, IPv6
	asks     map[TxID]*ask
	out      []Action
	started  bool
}

// NewDiscovery returns a Discovery; the first Step starts it.
func NewDiscovery(cfg Config) *Discovery {
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	d := &Discovery{cfg: cfg, asks: make(map[TxID]*ask)}
	for i := range d.families {
		d.families[i].d = d
	}
	for _, s := range cfg.Servers {
		s = unmap(s)
		if !s.IsValid() || s.Port() == 0 || s.Addr().IsUnspecified() {
			continue
		}
		f := &d.families[0]
		if s.Addr().Is6() {
			f = &d.families[1]
		}
		if len(f.servers) < maxServers && !slices.Contains(f.servers, s) {
			f.servers = append(f.servers, s)
		}
	}
	for _, l := range cfg.Local {
		f := &d.families[0]
		if l = unmap(l); l.Addr().Is6() {
			f = &d.families[1]
		}
		f.local = append(f.local, netip.AddrPortFrom(l.Addr().WithZone(""), l.Port()))
	}
	return d
}

// Step tells the machine what happened at time now, which never goes back, and
// returns what is to be done about it.
func (d *Discovery) Step(now time.Time, ev Event) []Action {
	d.out = nil
	if !d.started {
		d.started = true
		for i := range d.families {
			d.families[i].start(now)
		}
	}
	if in, ok := ev.(ResponseIn); ok {
		if a := d.asks[in.Message.Tx]; a != nil {
			a.receive(now, in)
		}
	}
	for i := range d.families {
		d.families[i].step(now)
	}
	return d.out
}

// Deadline is when the next [Tick] is due. Zero: before the first Step, and when
// the machine is done.
func (d *Discovery) Deadline() time.Time {
	var t time.Time
	for i := range d.families {
		t = earlier(t, d.families[i].deadline())
	}
	return t
}

// Ready reports whether everything is known that will be, but for the lifetime.
func (d *Discovery) Ready() bool {
	return d.started && d.families[0].stage >= stageLifetime && d.families[1].stage >= stageLifetime
}

// Done reports whether the machine has nothing more to do.
func (d *Discovery) Done() bool {
	return d.started && d.families[0].stage == stageDone && d.families[1].stage == stageDone
}

// Report returns what is known by now; its slices are the caller's.
func (d *Discovery) Report() Report {
	r := Report{V4: d.families[0].report(), V6: d.families[1].report()}
	r.summary()
	return r
}

// earlier returns the earlier of two times of which zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
