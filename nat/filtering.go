package nat

import (
	"net/netip"
	"slices"
	"time"

	"corax/control/hello"
	"corax/nat/path"
	"corax/nat/stun"
)

// The filtering behaviour (RFC 4787 section 5) of the NAT or firewall before us,
// where no STUN server has the second address that RFC 5780 asks for. A socket
// that has sent nothing yet asks one hub, home, at which address it is seen. Then
// every hub that we have a session with is asked, in the hello, to send there,
// from its tunnel port and from another one:
//
//	from another hub           endpoint-independent filtering
//	from home's other port     address-dependent, or weaker with one hub alone
//	from home's tunnel port    home did as it was asked
//	only that                  address and port-dependent
const (
	// testSettles is how long after home's own packet the others are waited for:
	// hubs send for less than half a second.
	testSettles = time.Second
	// testFor ends a test to which no hub answers: one of an older version, or
	// a lost socket.
	testFor = 5 * time.Second
	// askHomeEvery is how often home is asked for the socket's address.
	askHomeEvery = 500 * time.Millisecond
)

// helpAfter are the times after which a hub sends.
var helpAfter = [...]time.Duration{0, 150 * time.Millisecond, 400 * time.Millisecond}

// helpFor is how long a hub keeps the socket of a test: more than the last of these.
const helpFor = time.Second

// helpEvery is the least time between two tests that a hub takes part in, of one
// peer.
const helpEvery = time.Second

// filterTest is a test under way.
type filterTest struct {
	run    *stun.Discovery // whose report it completes
	socket uint32
	home   netip.AddrPort
	ask    stun.TxID // of the request to home
	hello.Test
	began, asked, marked time.Time
	least                stun.Filtering // seen by now; zero: nothing but home's own
}

// testFiltering begins a test when one is needed and possible, and reports
// whether one is under way.
func (a *Agent) testFiltering(now time.Time) bool {
	d := &a.discovery
	if a.filter != nil && a.filter.run == d.run {
		return true
	}
	if a.filter != nil { // of a run that is over
		a.endFilter()
	}
	if d.run == nil || !d.settled || d.tested == d.run || d.report.Blocked || d.report.Filtering != stun.FilteringUnknown || a.plan.Self.Hub {
		return false
	}
	i := slices.IndexFunc(a.hubs, func(h *peer) bool {
		return h.inSession && h.remote.CanProbe && h.way.Kind == path.Direct && h.way.To.Addr().Is6() == d.report.About6()
	})
	if i < 0 {
		return false
	}
	home := a.hubs[i].way.To
	d.tested = d.run
	sockets, err := a.tun().OpenSockets(1, home.Addr().Is6())
	if err != nil || len(sockets) != 1 {
		return false
	}
	t := &filterTest{run: d.run, socket: sockets[0], home: home, began: now}
	fill(t.ask[:])
	fill(t.Tx[:])
	for _, tx := range [2]stun.TxID{t.ask, t.Tx} {
		a.inbox.expect(tx, flight{purpose: forFilter, at: now})
	}
	a.filter = t
	a.stepFilter(now)
	return true
}

// stepFilter asks again, and ends a test whose time has come.
func (a *Agent) stepFilter(now time.Time) {
	t := a.filter
	switch {
	case t == nil:
	case !t.marked.IsZero() && now.Sub(t.marked) >= testSettles:
		if t.least == stun.FilteringUnknown {
			t.least = stun.FilteringAddressAndPortDependent
		}
		a.endFilter()
	case now.Sub(t.began) >= testFor:
		a.endFilter()
	case !t.Addr.IsValid() && now.Sub(t.asked) >= askHomeEvery:
		t.asked = now
		a.tun().SendRaw([]Raw{{Path: Path{To: t.home, Socket: t.socket}, Data: stun.AppendRequest(nil, t.ask, stun.RequestOptions{})}})
	}
}

// filterAnswer takes what came for the test, and reports whether that was so.
func (a *Agent) filterAnswer(d message, m stun.Message) bool {
	t := a.filter
	if t == nil || d.Socket != t.socket || !d.From.IsValid() || !d.Via.IsZero() || d.Stream != nil {
		return false
	}
	switch {
	case m.Kind == stun.KindResponse && m.Tx == t.ask && d.From == t.home && !t.Addr.IsValid():
		t.Addr = m.Mapped
		for _, h := range a.hubs {
			if h.inSession {
				a.introduce(h)
				a.hello.Resend(h.Key)
			}
		}
	case m.Kind == stun.KindAnswer && m.Tx == t.Tx && m.Verify(a.probeKey):
		t.hears(d.From, time.Now())
		if t.least == stun.FilteringEndpointIndependent {
			a.endFilter()
		}
	default:
		return false
	}
	return true
}

// hears takes note of where a hub's packet came from.
func (t *filterTest) hears(from netip.AddrPort, now time.Time) {
	switch {
	case from == t.home:
		if t.marked.IsZero() {
			t.marked = now
		}
	case from.Addr() != t.home.Addr():
		t.least = stun.FilteringEndpointIndependent
	default:
		t.least = stun.FilteringAddressDependent
	}
}

// endFilter takes in what the test showed.
func (a *Agent) endFilter() {
	t, d := a.filter, &a.discovery
	a.filter = nil
	a.inbox.land(t.ask)
	a.inbox.land(t.Tx)
	a.keepSockets()
	if t.run != d.run {
		return
	}
	d.filtering = t.least
	d.report.SetFiltering(t.least)
	d.adopt(d.report, true)
	d.report.SetFiltering(d.nat.Filtering) // of before, if nobody helped this time
	a.refreshLocal()
	a.tellDiscovery()
}

// helping is a socket from which we help somebody with his test.
type helping struct {
	socket uint32
	since  time.Time
}

// stopHelping closes the sockets that have sent everything, also where the loop was
// too busy for that.
func (a *Agent) stopHelping(now time.Time) {
	n := len(a.helping)
	a.helping = slices.DeleteFunc(a.helping, func(h helping) bool { return now.Sub(h.since) >= helpFor })
	if len(a.helping) < n {
		a.keepSockets()
	}
}

// keepSockets closes the further sockets that nobody needs any more.
func (a *Agent) keepSockets() {
	var all []uint32
	for _, p := range a.peers {
		all = append(all, p.sockets...)
	}
	if a.filter != nil {
		all = append(all, a.filter.socket)
	}
	for _, h := range a.helping {
		all = append(all, h.socket)
	}
	a.tun().CloseSockets(all...)
}

// help sends, as a hub, to where an edge asks for it. It must be where the edge's
// session comes from: nobody else gets packets because somebody asked for them.
func (a *Agent) help(p *peer, test hello.Test) {
	now := time.Now()
	if !a.plan.Self.Hub || p.Hub || test == p.tested || now.Sub(p.helped) < helpEvery {
		return
	}
	p.tested, p.helped = test, now
	act, ok := a.tun().Activity(p.Key)
	if !ok || act.Path.To.Addr() != test.Addr.Addr() {
		a.inbox.drops.add(dropWrongOrigin)
		return
	}
	sockets, err := a.tun().OpenSockets(1, test.Addr.Addr().Is6())
	if err != nil || len(sockets) != 1 {
		return // the edge learns nothing
	}
	other := sockets[0]
	a.helping = append(a.helping, helping{other, now})
	data := stun.AppendAnswer(nil, stun.TxID(test.Tx), test.Addr, p.probeKey)
	send := func() {
		a.tun().SendRaw([]Raw{{Path: Path{To: test.Addr}, Data: data}, {Path: Path{To: test.Addr, Socket: other}, Data: data}})
	}
	for _, after := range helpAfter {
		time.AfterFunc(after, func() { a.tryCall(send) })
	}
}
