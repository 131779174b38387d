package stun

import (
	"net/netip"
	"slices"
	"time"
)

// stage is how far a family is. A stage ends when all it asked for is answered or
// given up.
type stage uint8

const (
	stageServers  stage = iota // all servers, from the tunnel socket
	stageOpen                  // the other address; the first request of the extra socket
	stageProbes                // filtering and hairpinning
	stageSpread                // port steps
	stageLifetime              // the extra socket idles
	stageDone
)

// family is the discovery of one IP version.
type family struct {
	d       *Discovery
	servers []netip.AddrPort
	local   []netip.AddrPort
	stage   stage
	asks    []*ask // in the order in which they were first sent
	home    *ask   // askServer of the server that the extra socket talks to
	life    lifetime
}

func (f *family) start(now time.Time) {
	if len(f.servers) == 0 {
		f.stage = stageDone
		return
	}
	for _, s := range f.servers {
		f.ask(now, ask{why: askServer, to: s})
	}
}

func (f *family) step(now time.Time) {
	for _, a := range f.asks {
		a.tick(now)
	}
	for f.stage < stageLifetime && f.settled() {
		f.stage++
		switch f.stage {
		case stageOpen:
			f.open(now)
		case stageProbes:
			f.probes(now)
		case stageSpread:
			if f.rfc5780() { // else it is done
				f.spread(now)
			}
		case stageLifetime:
			f.life.start(f, now)
		}
	}
	if f.stage == stageLifetime {
		f.life.step(f, now)
	}
}

// settled reports whether the stage has nothing to wait for. Servers that are slow
// or dead do not keep those waiting that answered: two are enough.
func (f *family) settled() bool {
	answers, late := 0, false
	for _, a := range f.asks {
		switch {
		case a.outcome == replied:
			answers++
		case a.outcome != waiting, a.why == askServer && f.stage != stageServers:
		case a.why == askServer && a.tries > 1:
			late = true
		default:
			return false
		}
	}
	return !late || answers >= 2
}

func (f *family) deadline() time.Time {
	var t time.Time
	for _, a := range f.asks {
		if a.outcome == waiting {
			t = earlier(t, a.next)
		}
	}
	if f.stage == stageLifetime {
		t = earlier(t, f.life.wake)
	}
	if f.stage == stageDone {
		return time.Time{}
	}
	return t
}

// rfc5780 reports whether home has another address.
func (f *family) rfc5780() bool { return f.home != nil && f.home.otherAt.IsValid() }

// behindNAT reports whether home saw another address than ours.
func (f *family) behindNAT() bool {
	return f.home != nil && !slices.Contains(f.local, f.home.mapped)
}

// open chooses home and asks it from the extra socket, before which that socket
// has sent nothing; the tunnel socket asks home's other address (RFC 5780 section
// 4.3). Both at once, so that a NAT that counts ports up shows it.
func (f *family) open(now time.Time) {
	for _, a := range f.asks {
		if a.outcome == replied && (f.home == nil || !f.rfc5780() && a.otherAt.IsValid()) {
			f.home = a
		}
	}
	if f.home == nil {
		return
	}
	if f.rfc5780() {
		o := f.home.otherAt
		for _, to := range []netip.AddrPort{netip.AddrPortFrom(o.Addr(), f.home.to.Port()), o} {
			if !slices.Contains(f.servers, to) {
				f.ask(now, ask{why: askOther, to: to})
			}
		}
	}
	if !f.d.cfg.NoOther {
		f.ask(now, ask{why: askHome, to: f.home.to, other: true})
	}
}

// extra returns the first request of the extra socket when it was answered.
func (f *family) extra() *ask { return f.find(askHome, replied) }

func (f *family) find(why purpose, o outcome) *ask {
	for _, a := range f.asks {
		if a.why == why && a.outcome == o {
			return a
		}
	}
	return nil
}

// probes tests filtering (RFC 5780 section 4.4) on the extra socket, since the
// tunnel socket has sent to the other address, and hairpinning in both directions
// between the sockets, since each opens the filter for the other.
func (f *family) probes(now time.Time) {
	x := f.extra()
	if x == nil {
		return
	}
	if f.rfc5780() {
		f.ask(now, ask{why: askFilterBoth, to: x.to, other: true, opt: RequestOptions{ChangeIP: true, ChangePort: true}})
		f.ask(now, ask{why: askFilterPort, to: x.to, other: true, opt: RequestOptions{ChangePort: true}})
	} else {
		f.spread(now)
	}
	if f.behindNAT() {
		f.ask(now, ask{why: askHairpin, to: x.mapped, rto: hairpinRTO})
		f.ask(now, ask{why: askHairpin, to: f.home.mapped, other: true, rto: hairpinRTO})
	}
}

// spread makes more mappings when the NAT makes one per destination. It comes
// after the filtering test: it opens the filter for the other servers.
func (f *family) spread(now time.Time) {
	if f.extra() == nil || !f.mapping().dependent() {
		return
	}
	for _, a := range slices.Clone(f.asks) {
		if (a.why == askServer || a.why == askOther) && a.outcome == replied && a != f.home {
			f.ask(now, ask{why: askSpread, to: a.to, other: true})
		}
	}
}
