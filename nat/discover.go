package nat

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"corax/nat/stun"
)

const (
	// maxLifetime is how long mappings are let idle to see whether they live.
	maxLifetime = 5 * time.Minute
	// discoverGap is the least time between two rounds.
	discoverGap = 2 * time.Second
	// lookFor is how long the next port of a sequential NAT is looked for.
	lookFor = 300 * time.Millisecond
	// askFirst and askLast bound the wait for the next round while nobody answers,
	// or too few to tell how the NAT maps.
	askFirst = 5 * time.Second
	askLast  = time.Minute
	// maxServers are asked.
	maxServers = 8
)

// discovery is the loop's part that asks STUN servers. It is run at the start,
// when the network changes, and when a path dies.
type discovery struct {
	run     *stun.Discovery // nil: none yet
	asked   []netip.AddrPort
	started time.Time
	wait    time.Duration // before the next round while little is known
	again   bool          // something happened meanwhile
	settled bool          // run was ready, and its outcome taken in
	waiting []func()

	tested    *stun.Discovery // the run whose filtering was tested
	filtering stun.Filtering  // what that showed

	extra [2]*net.UDPConn // IPv4 and IPv6, of this run; nil: none

	report stun.Report
	nat    stun.Family
	public []netip.AddrPort
}

// servers are the addresses to ask: hubs of other domains, and those configured.
// Those that may not answer are left out: their silence would say that UDP is
// blocked.
func (a *Agent) servers() []netip.AddrPort {
	var out []netip.AddrPort
	add := func(s netip.AddrPort) {
		if s.IsValid() && len(out) < maxServers && !slices.Contains(out, s) && a.cfg.Allowed(s.Addr()) {
			out = append(out, s)
		}
	}
	for _, h := range a.hubs {
		add(h.Endpoint)
	}
	for _, s := range a.cfg.STUN() {
		add(s)
	}
	for _, p := range a.plan.Peers {
		if p.Hub && !p.SameDomain {
			add(p.Endpoint)
		}
	}
	return out
}

// discover asks the servers again, now or when the present round has an outcome.
func (a *Agent) discover(why string) {
	d := &a.discovery
	if d.run != nil && !d.settled {
		d.again = true
		return
	}
	servers := a.servers()
	if len(servers) == 0 {
		d.close()
		d.run, d.asked, d.nat, d.public, d.report = nil, nil, stun.Family{}, nil, stun.Report{}
		a.refreshLocal()
		return
	}
	if wait := time.Until(d.started.Add(discoverGap)); wait > 0 && slices.Equal(servers, d.asked) {
		if !d.again {
			d.again = true
			time.AfterFunc(wait, func() { a.tryCall(func() { a.discoverAgain(why) }) })
		}
		return
	}
	a.log.Debug("discovery", "why", why, "servers", servers)
	d.close()
	var local []netip.AddrPort
	for _, p := range a.cfg.Prefixes() {
		local = append(local, netip.AddrPortFrom(p.Addr().Unmap(), a.cfg.Port))
	}
	d.run = stun.NewDiscovery(stun.Config{Servers: servers, Local: local, MaxLifetime: maxLifetime})
	d.asked, d.started, d.again, d.settled, d.filtering = servers, time.Now(), false, false, stun.FilteringUnknown
	a.stepDiscovery(stun.Tick{})
}

// askMore begins another round while the last one told little: UDP may be let
// through again, and servers that only started may answer now.
func (a *Agent) askMore(now time.Time) {
	d := &a.discovery
	if d.run == nil || !d.settled {
		return
	}
	if !d.nat.Blocked && (d.nat.Mapping != stun.MappingUnknown || len(d.asked) < 2) {
		d.wait = 0
		return
	}
	if now.Sub(d.started) < max(d.wait, askFirst) {
		return
	}
	d.wait = min(max(2*d.wait, 2*askFirst), askLast)
	a.discover("little is known of the NAT")
}

func (a *Agent) discoverAgain(why string) {
	if a.discovery.again && (a.discovery.run == nil || a.discovery.settled) {
		a.discovery.again = false
		a.discover(why)
	}
}

// tryCall has f run in the loop unless that is gone or far behind.
func (a *Agent) tryCall(f func()) {
	select {
	case a.inbox.calls <- f:
	default:
	}
}

func (d *discovery) deadline() time.Time {
	if d.run == nil {
		return time.Time{}
	}
	return d.run.Deadline()
}

func (a *Agent) stepDiscovery(ev stun.Event) {
	d := &a.discovery
	if d.run == nil {
		return
	}
	now := time.Now()
	for _, act := range d.run.Step(now, ev) {
		s, ok := act.(stun.Send)
		if !ok || len(s.Data) < 20 {
			continue
		}
		a.inbox.expect(stun.TxID(s.Data[8:20]), flight{purpose: forSTUN, at: now})
		if s.FromOther {
			a.sendExtra(s)
		} else {
			a.tun().SendRaw([]Raw{{Path: Path{To: s.To}, Data: s.Data}})
		}
	}
	d.report = d.run.Report()
	d.report.SetFiltering(d.filtering)
	ready := d.run.Ready()
	d.adopt(d.report, ready)
	a.refreshLocal()
	if ready && !d.settled {
		d.settled = true
		if !a.testFiltering(now) {
			a.tellDiscovery()
		}
		if d.again {
			a.later = append(a.later, func() { a.discoverAgain("something changed meanwhile") })
		}
	}
	if d.run.Done() {
		d.close()
	}
}

// tellDiscovery tells those who wait that there is an outcome.
func (a *Agent) tellDiscovery() {
	d := &a.discovery
	a.log.Info("NAT", "is", d.report.String(), "public", d.report.Public)
	for _, f := range d.waiting {
		f()
	}
	d.waiting = nil
}

// sendExtra sends from a socket that was not used for anything before.
func (a *Agent) sendExtra(s stun.Send) {
	d, i := &a.discovery, 0
	network := "udp4"
	if s.To.Addr().Is6() {
		i, network = 1, "udp6"
	}
	if d.extra[i] == nil {
		c, err := a.openUDP(network)
		if err != nil {
			return // the discovery takes it for silence
		}
		d.extra[i] = c
		run := d.run
		a.readers.Go(func() {
			a.readExtra(c, func(in stun.ResponseIn) {
				a.tryCall(func() {
					if a.discovery.run == run {
						a.stepDiscovery(in)
					}
				})
			})
		})
	}
	_, _ = d.extra[i].WriteToUDPAddrPort(s.Data, s.To)
}

// openUDP opens a further socket.
func (a *Agent) openUDP(network string) (c *net.UDPConn, err error) {
	err = a.cfg.Open(func() (err error) {
		c, err = net.ListenUDP(network, nil)
		return err
	})
	return c, err
}

// readExtra hands on the answers that come to a further socket, until that is
// closed.
func (a *Agent) readExtra(c *net.UDPConn, got func(stun.ResponseIn)) {
	b := make([]byte, 1500)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			_ = c.Close()
			return
		}
		m, err := stun.Parse(append([]byte(nil), b[:n]...))
		if err != nil {
			continue
		}
		if _, ours := a.inbox.expected(m.Tx); ours {
			got(stun.ResponseIn{Message: m, From: netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), OnOther: true})
		}
	}
}

// close closes the further sockets, which ends their readers.
func (d *discovery) close() {
	for i, c := range d.extra {
		if c != nil {
			_ = c.Close()
			d.extra[i] = nil
		}
	}
}

// lookAhead finds out which port a sequential NAT gives next, with a socket that
// has no mapping yet, and calls then.
func (a *Agent) lookAhead(then func()) {
	i := slices.IndexFunc(a.discovery.asked, func(s netip.AddrPort) bool { return s.Addr().Is4() })
	if i < 0 {
		then()
		return
	}
	c, err := a.openUDP("udp4")
	if err != nil {
		then()
		return
	}
	var tx stun.TxID
	fill(tx[:])
	a.inbox.expect(tx, flight{purpose: forSTUN, at: time.Now()})
	done := false
	finish := func(mapped netip.AddrPort) {
		if done {
			return
		}
		done = true
		_ = c.Close()
		if mapped.IsValid() && mapped.Addr().Is4() {
			d := &a.discovery
			d.public = append([]netip.AddrPort{mapped}, slices.DeleteFunc(slices.Clone(d.public), func(p netip.AddrPort) bool { return p.Addr().Is4() })...)
			a.refreshLocal()
		}
		then()
	}
	a.readers.Go(func() {
		a.readExtra(c, func(in stun.ResponseIn) { a.tryCall(func() { finish(in.Message.Mapped) }) })
		a.tryCall(func() { finish(netip.AddrPort{}) })
	})
	_, _ = c.WriteToUDPAddrPort(stun.AppendRequest(nil, tx, stun.RequestOptions{}), a.discovery.asked[i])
	_ = c.SetReadDeadline(time.Now().Add(lookFor)) // then its reader ends
}
