package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"slices"
	"time"

	"corax/control"
	"corax/dataplane"
	"corax/dataplane/key"
	"corax/dataplane/wg"
)

const (
	// healEvery is how often the host is compared with the plan although
	// nothing was reported: somebody may have removed a rule.
	healEvery = 30 * time.Second
	// retryEvery is how soon a part that could not start is tried again.
	retryEvery = 5 * time.Second
	// clockEvery is how often the clock reading on disk is renewed.
	clockEvery = time.Minute
)

// inbox is how everybody else speaks to the control loop. It never blocks them:
// of several snapshots only the newest counts.
type inbox struct {
	snapshots chan control.Snapshot
	pokes     chan struct{}
	rounds    chan struct{}
}

func newInbox() inbox {
	return inbox{snapshots: make(chan control.Snapshot, 1), pokes: make(chan struct{}, 1), rounds: make(chan struct{}, 1)}
}

// put replaces the waiting snapshot. Only one goroutine calls it.
func (b inbox) put(s control.Snapshot) {
	select {
	case <-b.snapshots:
	default:
	}
	b.snapshots <- s // the only sender: there is room
}

// poke asks for another round without news from the objects.
func (b inbox) poke() {
	select {
	case b.pokes <- struct{}{}:
	default:
	}
}

// round tells that everybody who should be was pinged.
func (b inbox) round() {
	select {
	case b.rounds <- struct{}{}:
	default:
	}
}

// view is what the control loop shows: immutable once stored.
type view struct {
	have     bool // a snapshot has been applied
	plan     control.Desired
	proxy    control.Proxy
	tunnel   *tunnel // nil while the tunnel port is closed
	problems []string
	claim    *control.Claim // our own, as the plan had it
}

// loop is the state of the control loop; one goroutine owns it.
type loop struct {
	have     bool
	snapshot control.Snapshot
	tunnel   *running[*tunnel]
	mtu      int // that the tunnel was told
	memory   memory
	saved    map[key.Public]netip.AddrPort // as on disk
	dir      string
	reported map[string]bool   // problems that have been logged
	notes    map[string]string // problems of the loop itself, by subject
	retry    bool
	opened   time.Time // when the tunnel was
	listed   time.Time // since when peers could know this node's key
	entry    entry     // as the cluster was told
	natAsked time.Time // when the NAT type was looked at
	takeover takeover
	rotation rotation
}

func newLoop(dir string, log *slog.Logger) loop {
	m, err := loadMemory(dir)
	if err != nil {
		log.Warn("what the last start knew is lost", "err", err)
	}
	return loop{dir: dir, memory: m, saved: m.Proven, reported: map[string]bool{}, notes: map[string]string{}}
}

// control is the control loop: it turns snapshots into plans and plans into
// changes, until ctx ends.
func (a *agent) control(ctx context.Context) error {
	l := &a.loop
	defer func() { l.tunnel.stop() }()
	defer a.stopEdge()
	defer func() { a.remember(time.Now()) }()
	if behind := l.memory.clockBehind(a.started); behind > 0 {
		l.notes["clock"] = fmt.Sprintf("the clock is %v behind the last run: peers refuse handshakes until it has caught up", behind.Round(time.Second))
	}
	second := time.NewTicker(time.Second)
	defer second.Stop()
	var healed, tried time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case l.snapshot = <-a.inbox.snapshots:
			l.have = true
		case <-a.inbox.pokes:
		case <-a.inbox.rounds:
			if !a.failover(time.Now()) {
				continue
			}
		case now := <-second.C:
			a.lookAround(now)
			if a.rotate(now) {
				return errNewKey
			}
			if !l.tunnel.dead() && now.Sub(healed) < healEvery && (!l.retry || now.Sub(tried) < retryEvery) {
				continue
			}
		}
		if l.have {
			healed, tried = time.Now(), time.Now()
			a.apply(ctx)
		}
	}
}

// apply brings every part to the plan of the present snapshot. What fails is a
// problem, and does not keep the rest from being applied.
func (a *agent) apply(ctx context.Context) {
	l := &a.loop
	local, problems := a.local()
	local.Claims, local.Heard = a.claims(), a.heard()
	claim := l.takeover.machine.Claim()
	snapshot := a.switched(l.snapshot)
	plan, proxied := control.Plan(snapshot, local), control.PlanProxy(snapshot, local)
	for _, p := range plan.Problems {
		problems = append(problems, p.String())
	}
	note := func(err error) {
		if err != nil {
			problems = append(problems, err.Error())
		}
	}
	problems = append(problems, a.planned(plan)...)
	problems = append(problems, a.resolve(plan.Config)...)
	a.applyAllow(plan.Config.Allow)
	a.limitMTU(plan.Config)
	l.retry = false
	if !proxied.Edge {
		a.stopEdge() // while there is a tunnel for the resets of its streams
	}
	if err := a.applyTunnel(ctx, plan.Config); err != nil {
		l.retry = true
		note(err)
	}
	tunnel := l.tunnel.value()
	for _, err := range a.vxlan.SetVTEPs(plan.Config.VTEPs) {
		note(err)
	}
	note(a.fabric.Apply(plan.Config, a.outputs(tunnel)))
	if tunnel != nil {
		// After the fabric: only then what comes from an overlay address is the
		// peer's.
		p := a.natPlan(plan.Config)
		p.Claims = a.said(plan)
		tunnel.nat.SetPlan(p)
		problems = append(problems, tunnel.nat.Problems()...)
	}
	problems = append(problems, a.applyProxy(ctx, proxied, plan.Config.Peers)...)
	problems = append(problems, a.applyHost(ctx, plan.Config)...)
	problems = append(problems, a.applyOutbound(plan.Config)...)
	problems = append(problems, a.clusterProblems()...)
	for _, n := range l.notes {
		problems = append(problems, n)
	}
	slices.Sort(problems)
	problems = slices.Compact(problems)
	a.logProblems(problems)
	if old := a.view.Load(); !old.have || old.plan.Role != plan.Role || old.plan.Gateway != plan.Gateway {
		a.log.Info("role changed", "role", plan.Role, "gateway", plan.Gateway)
	}
	a.view.Store(&view{have: true, plan: plan, proxy: proxied, tunnel: tunnel, problems: problems, claim: claim})
}

// applyTunnel opens or closes the tunnel port and sets its peers.
func (a *agent) applyTunnel(ctx context.Context, c dataplane.Config) error {
	l := &a.loop
	if l.tunnel.dead() {
		err := l.closeTunnel()
		a.book.clear()
		a.log.Error("the tunnel stopped, it is opened again", "err", err)
	}
	if !c.Self.Tunnel {
		if l.tunnel != nil {
			// Nobody may send into a device that is being closed.
			_ = a.fabric.Apply(c, a.outputs(nil))
			a.remember(time.Now())
			_ = l.closeTunnel()
			a.book.clear()
			a.log.Info("tunnel port closed")
		}
		return nil
	}
	if l.tunnel != nil {
		dev := l.tunnel.value()
		if l.mtu != c.Self.MTU {
			l.mtu = c.Self.MTU
			dev.SetMTU(l.mtu)
		}
		return dev.SetPeers(c.Peers)
	}
	dev, err := a.openTunnel(c.Self.MTU)
	if err != nil {
		return err
	}
	l.mtu = c.Self.MTU
	err = dev.SetPeers(c.Peers)
	a.rejoin(dev, c)
	l.tunnel, l.opened = start(ctx, dev, dev.Run), time.Now()
	a.log.Info("tunnel port open", "port", dev.Port())
	return err
}

// closeTunnel ends the tunnel and returns what its Run returned. It gives the
// memory of the packet buffers, some 16 MB, back at once: a node whose role
// changes to and fro would hold several sets of them.
func (l *loop) closeTunnel() error {
	err := l.tunnel.stop()
	l.tunnel = nil
	debug.FreeOSMemory()
	return err
}

// rejoin calls every peer whose address is known, at once: what a crash of ours
// cut off does not wait for the others to notice. What the objects say of an
// address is newer than what the last start knew.
func (a *agent) rejoin(dev *tunnel, c dataplane.Config) {
	for _, p := range c.Peers {
		addr := a.loop.memory.Proven[p.PublicKey]
		switch {
		case p.Other, !c.Self.Hub && !p.Hub && !p.SameDomain:
			continue // it is looked for when there is traffic
		case p.Endpoint.IsValid():
		case addr.IsValid():
			dev.SetPath(p.PublicKey, wg.Path{To: addr}, false)
		default:
			continue // only the peer can start
		}
		dev.Handshake(p.PublicKey)
	}
}

// resolve fills in the addresses of hubs that publish a name, and has those of
// STUN servers looked up.
func (a *agent) resolve(c dataplane.Config) []string {
	peers := c.Peers
	var servers, problems []string
	for _, s := range a.cfg.STUNServers {
		if _, err := netip.ParseAddr(s.Host); err != nil {
			servers = append(servers, s.Host)
		}
	}
	hosts := slices.Clone(servers)
	for _, p := range peers {
		if p.EndpointHost != "" {
			hosts = append(hosts, p.EndpointHost)
		}
	}
	if c.Allow != nil {
		hosts = append(hosts, c.Allow.Hosts...)
	}
	a.resolver.Want(hosts)
	for _, s := range servers {
		if _, err := a.resolver.Addr(s); err != nil {
			problems = append(problems, fmt.Sprintf("--stun-server: %v", err))
		}
	}
	for i := range peers {
		p := &peers[i]
		if p.EndpointHost == "" {
			continue
		}
		addr, err := a.resolver.Addr(p.EndpointHost)
		if err != nil {
			problems = append(problems, fmt.Sprintf("gateway/%s: %v", p.Gateway, err))
		}
		switch inside := prefixWith(c.Forbidden, addr); {
		case inside.IsValid(): // its packets would go into the tunnel themselves
			problems = append(problems, fmt.Sprintf("gateway/%s: %s, the name of node %s, leads to %s in the pod subnet %s; it is not used",
				p.Gateway, p.EndpointHost, p.Node, addr, inside))
		case addr.IsValid():
			p.Endpoint = netip.AddrPortFrom(addr, p.EndpointPort)
		}
	}
	return problems
}

// prefixWith returns the first prefix that contains an address; zero when none does.
func prefixWith(all []netip.Prefix, x netip.Addr) netip.Prefix {
	for _, p := range all {
		if p.Contains(x) {
			return p
		}
	}
	return netip.Prefix{}
}

// limitMTU gives the routes the MTUs that paths were measured to have. TCP on
// IPv6 paths that nobody has probed is clamped to what every one carries; either
// end's clamp serves both.
func (a *agent) limitMTU(c dataplane.Config) {
	var measured map[key.Public]int
	if t := a.loop.tunnel.value(); t != nil {
		measured = t.nat.MTUs()
	}
	limitMTU(c, measured)
}

func limitMTU(c dataplane.Config, measured map[key.Public]int) {
	v6 := map[key.Public]bool{}
	for _, p := range c.Peers {
		v6[p.PublicKey] = p.Endpoint.Addr().Is6() && !p.Endpoint.Addr().Is4In6()
	}
	mtus := map[netip.Prefix]int{}
	for i := range c.Routes {
		r := &c.Routes[i]
		if r.Via != dataplane.ViaWireGuard {
			continue
		}
		if mtu := min(measured[r.Peer], c.Self.MTU); mtu != 0 {
			// What went through fragmented before still does, and its sender is
			// told: who hears no ICMP must not be cut off.
			r.Carry = max(r.MTU, mtu)
			r.MTU = mtu
			mtus[r.Prefix] = r.Carry // the kernel drops what is larger
		} else if v6[r.Peer] {
			r.TCPMTU = dataplane.PathMTU6
		}
	}
	for i := range c.Host {
		if mtu, ok := mtus[c.Host[i].Prefix]; ok {
			c.Host[i].MTU = mtu
		}
	}
}

// logProblems logs what is new, and what is over.
func (a *agent) logProblems(problems []string) {
	l := &a.loop
	for _, p := range problems {
		if !l.reported[p] {
			l.reported[p] = true
			a.log.Warn("problem", "what", p)
		}
	}
	for p := range l.reported {
		if !slices.Contains(problems, p) {
			delete(l.reported, p)
			a.log.Info("problem is over", "what", p)
		}
	}
}

// lookAround notes once a second who talks to whom, and writes the memory when
// that is due.
func (a *agent) lookAround(now time.Time) {
	l := &a.loop
	dev := l.tunnel.value()
	if dev == nil {
		a.states.Store(nil)
		a.traffic.sample(now, nil, a.vxlan.Status())
		a.report(now, nil)
		return
	}
	peers := dev.Status()
	a.report(now, peers)
	a.states.Store(&peers)
	a.traffic.sample(now, peers, a.vxlan.Status())
	if l.saveDue(now, peers) {
		a.remember(now)
	}
}

// saveDue reports whether the memory should be written: a peer was proven
// elsewhere than the file says, the clock reading in it is old, or writing it
// failed a while ago.
func (l *loop) saveDue(now time.Time, peers []dataplane.PeerStatus) bool {
	wait := clockEvery
	if l.notes["memory"] != "" {
		wait = retryEvery
	}
	if now.Sub(l.memory.Clock) >= wait {
		return true
	}
	return slices.ContainsFunc(peers, func(s dataplane.PeerStatus) bool {
		return !s.Proven.IsZero() && s.Endpoint.IsValid() && l.saved[s.PublicKey] != s.Endpoint
	})
}

// remember writes what the next start wants to know.
func (a *agent) remember(now time.Time) {
	l := &a.loop
	dev := l.tunnel.value()
	if dev == nil {
		return
	}
	proven := map[key.Public]netip.AddrPort{}
	for _, s := range dev.Status() {
		switch {
		case !s.Proven.IsZero() && s.Endpoint.IsValid():
			proven[s.PublicKey] = s.Endpoint
		case l.memory.Proven[s.PublicKey].IsValid():
			proven[s.PublicKey] = l.memory.Proven[s.PublicKey]
		}
	}
	l.memory.Proven = proven
	if now.After(l.memory.Clock) {
		l.memory.Clock = now
		if c := l.memory.Claim; c != nil {
			c.At = now
		}
		delete(l.notes, "clock")
	}
	l.saved = proven // also when it fails: saveDue asks again
	err := l.memory.save(l.dir)
	if was := l.notes["memory"] != ""; was != (err != nil) {
		a.inbox.poke() // for status to show it, or no longer
	}
	if err != nil {
		l.notes["memory"] = err.Error()
		return
	}
	delete(l.notes, "memory")
}

// switched applies the switches of the agent's own configuration.
func (a *agent) switched(s control.Snapshot) control.Snapshot {
	if a.cfg.Tunnel != nil {
		s.EnableTunnel = *a.cfg.Tunnel
	}
	if a.cfg.Proxy != nil {
		s.EnableProxy = *a.cfg.Proxy
	}
	if len(a.cfg.Allow) > 0 {
		s.AllowSources, s.AllowClosed = a.cfg.Allow, false
	}
	return s
}
