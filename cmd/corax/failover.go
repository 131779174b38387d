package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"corax/control"
	"corax/control/failover"
	"corax/control/hello"
	"corax/dataplane"
	"corax/dataplane/key"
)

const (
	// contactFresh is how long ago an answer shows that a node is not cut off.
	contactFresh = 3 * time.Second
	// maxWitnesses bounds who is pinged for that, of the domain and outside.
	maxWitnesses = 3
	// claimFresh is how old a claim on disk may be that a restart takes up.
	claimFresh = 90 * time.Second
)

// claimBook holds what peers of other domains say of theirs.
type claimBook struct {
	changed func()

	mu     sync.Mutex
	byPeer map[key.Public]control.Claim
}

// heard takes in what a peer says; nil: nothing any more.
func (b *claimBook) heard(k key.Public, c *hello.Claims) {
	b.mu.Lock()
	old, had := b.byPeer[k]
	switch {
	case c == nil:
		delete(b.byPeer, k)
	default:
		if b.byPeer == nil {
			b.byPeer = map[key.Public]control.Claim{}
		}
		b.byPeer[k] = control.Claim{Gateway: c.Gateway, Epoch: c.Epoch, Active: c.Active, From: k}
	}
	now, has := b.byPeer[k]
	b.mu.Unlock()
	if had != has || !old.Equal(now) {
		b.changed()
	}
}

// clear forgets everything: with the tunnel go those who could take it back.
func (b *claimBook) clear() {
	b.mu.Lock()
	had := len(b.byPeer)
	clear(b.byPeer)
	b.mu.Unlock()
	if had > 0 {
		b.changed()
	}
}

func (b *claimBook) all() []control.Claim {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]control.Claim, 0, len(b.byPeer))
	for _, c := range b.byPeer {
		out = append(out, c)
	}
	return out
}

// takeover is the control loop's part of a failover without the API server.
type takeover struct {
	machine failover.Machine
	why     string // of our claim
	said    bool   // peers were told of an epoch, and must hear when it ends
	restore bool   // the claim on disk was looked at

	claims  atomic.Uint64 // that this node made
	changes atomic.Uint64 // of who carries this domain, by claims
}

// claims are all that the plan must know: of peers, of this domain, and our own.
func (a *agent) claims() []control.Claim {
	out := append(a.book.all(), a.domain.claims()...)
	if c := a.loop.takeover.machine.Claim(); c != nil {
		out = append(out, *c)
	}
	return out
}

// planned is called when a plan was made: it tells the domain what counts here.
func (a *agent) planned(plan control.Desired) []string {
	t := &a.loop.takeover
	if d := plan.Domain; d != nil && !t.restore {
		t.restore = true
		if s := a.loop.memory.Claim; s != nil && time.Since(s.At) < claimFresh {
			s.Claim.From = a.public // the key may be another now
			t.machine.Restore(s.Claim, d, s.Epoch, s.Active)
			t.why = "it did before it was started again"
			a.inbox.poke()
		}
	}
	v := domainView{gateway: plan.Gateway, node: a.cfg.NodeName, domain: plan.Domain}
	var problems []string
	if d := plan.Domain; d != nil && d.Claim != nil {
		text := fmt.Sprintf("gateway/%s: %s carries its subnets instead of %s (claim with epoch %d)",
			plan.Gateway, strings.Join(d.Claim.Active, " and "), strings.Join(d.Active, " and "), d.Claim.Epoch)
		if own := t.machine.Claim(); own != nil && d.Claim.Equal(*own) {
			v.claim = own
			text += ": " + t.why
		}
		problems = append(problems, text)
	}
	if old := a.view.Load(); old.plan.Domain != nil && plan.Domain != nil && !slices.Equal(old.plan.Domain.Carriers, plan.Domain.Carriers) {
		a.log.Info("gateway nodes changed", "gateway", plan.Gateway, "from", old.plan.Domain.Carriers, "to", plan.Domain.Carriers,
			"claimed", plan.Domain.Claim != nil)
		if plan.Domain.Claim != nil || old.plan.Domain.Claim != nil {
			t.changes.Add(1)
		}
	}
	a.domain.look(v)
	return problems
}

// said is what peers are told of who carries this domain; nil: nothing.
func (a *agent) said(plan control.Desired) *hello.Claims {
	t, d := &a.loop.takeover, plan.Domain
	if d == nil || plan.Role < control.RoleStandby {
		return nil
	}
	c := &hello.Claims{Gateway: plan.Gateway, Epoch: d.Epoch, Active: d.Active}
	if own := t.machine.Claim(); own != nil && d.Claim != nil && d.Claim.Equal(*own) {
		c.Epoch, c.Active = own.Epoch, own.Active
	} else if d.Claim != nil && firsthand(*d.Claim, a.claims(), plan.Config.Peers) {
		// A peer of another domain that sends to us after a start may not know the
		// claimant, who does not know of it.
		c.Epoch, c.Active = d.Claim.Epoch, d.Claim.Active
	}
	if !t.said && c.Epoch == 0 {
		return nil // what everybody takes it to be
	}
	t.said = true
	return c
}

// firsthand reports whether one of those who claim c said so itself. What others
// pass on is not passed on again, or a claim would outlive its end.
func firsthand(c control.Claim, heard []control.Claim, peers []dataplane.Peer) bool {
	return slices.ContainsFunc(heard, func(x control.Claim) bool {
		if x.Gateway != c.Gateway || x.Epoch != c.Epoch || !slices.Equal(x.Active, c.Active) {
			return false
		}
		i := slices.IndexFunc(peers, func(p dataplane.Peer) bool { return p.PublicKey == x.From })
		return i >= 0 && slices.Contains(x.Active, peers[i].Node)
	})
}

// failover looks once a second whether this node must take over, or may let go,
// and reports whether the plan must be made anew.
func (a *agent) failover(now time.Time) bool {
	v, t := a.view.Load(), &a.loop.takeover
	if !v.have || v.claim != t.machine.Claim() {
		return false // the plan has not judged our claim yet
	}
	in := a.failoverInput(v, now)
	in.Contact = a.contact(v, in, now)
	why := t.machine.Step(now, in)
	if why == "" {
		return false
	}
	a.loop.memory.Claim = nil
	if c := t.machine.Claim(); c != nil {
		t.why = why
		t.claims.Add(1)
		epoch, active := t.machine.Base()
		a.loop.memory.Claim = &savedClaim{Claim: *c, Epoch: epoch, Active: active, At: now}
		a.log.Warn("this node takes over", "gateway", c.Gateway, "epoch", c.Epoch, "active", c.Active, "why", why)
	} else {
		a.log.Info("this node lets go", "gateway", in.Gateway, "why", why)
	}
	a.remember(now)
	return true
}

func (a *agent) failoverInput(v *view, now time.Time) failover.Input {
	in := failover.Input{
		Node: a.cfg.NodeName, Key: a.public, Gateway: v.plan.Gateway, Domain: v.plan.Domain,
		Readings: map[string]failover.Reading{}, Elects: a.elects(now),
	}
	if in.Domain == nil {
		return in
	}
	for _, m := range in.Domain.Members {
		if r, ok := a.live.Of(m.Overlay); ok {
			in.Readings[m.Node] = failover.Reading{Missed: r.silent, Answered: !r.answered.IsZero()}
		}
	}
	return in
}

// electsAfter is how long the API server must be there until somebody is taken
// to elect.
const electsAfter = 5 * time.Second

// elects reports whether somebody elects active endpoints at present.
func (a *agent) elects(now time.Time) bool {
	if a.cluster == nil {
		return false
	}
	connected, since := a.cluster.Connected()
	return connected && now.Sub(since) > electsAfter
}

// witnesses are who should answer a node that is not cut off: of its domain, and
// beyond.
func (a *agent) witnesses(v *view, in failover.Input) (near, far []netip.Addr) {
	near, _ = a.domain.nodes(maxWitnesses, time.Time{})
	for _, m := range in.Domain.Members {
		if m.Node != in.Node && in.Readings[m.Node].Missed < 2 {
			near = append(near, m.Overlay)
		}
	}
	states := a.states.Load()
	if states == nil {
		return near, nil
	}
	for _, s := range *states {
		i := slices.IndexFunc(v.plan.Config.Peers, func(p dataplane.Peer) bool { return p.PublicKey == s.PublicKey && !p.SameDomain })
		if i >= 0 && !s.LastHandshake.IsZero() && len(far) < maxWitnesses {
			far = append(far, s.PublicKey.Overlay())
		}
	}
	return near, far
}

// contact reports whether this node is not cut off from everybody: who cannot be
// expected to answer proves nothing.
func (a *agent) contact(v *view, in failover.Input, now time.Time) bool {
	if _, doubt := failover.Watch(in); !doubt {
		return true
	}
	near, far := a.witnesses(v, in)
	if a.answers(near, now) {
		return true
	}
	nodes, heard := a.domain.nodes(maxWitnesses, now.Add(-contactFresh))
	return heard || len(nodes) == 0 && (len(far) == 0 || a.answers(far, now))
}

func (a *agent) answers(all []netip.Addr, now time.Time) bool {
	return slices.ContainsFunc(all, func(x netip.Addr) bool {
		r, ok := a.live.Of(x)
		return ok && now.Sub(r.answered) < contactFresh
	})
}

// watched are the overlay addresses to ping once a second for failover.
func (a *agent) watched(v *view, now time.Time) []target {
	in := a.failoverInput(v, now)
	nodes, doubt := failover.Watch(in)
	var out []target
	add := func(x netip.Addr) { out = append(out, target{addr: x, busy: true}) }
	for _, n := range nodes {
		i := slices.IndexFunc(in.Domain.Members, func(m control.Member) bool { return m.Node == n })
		add(in.Domain.Members[i].Overlay)
	}
	if doubt {
		near, far := a.witnesses(v, in)
		for _, x := range append(near, far...) {
			add(x)
		}
	}
	return out
}

// urgent reports whether somebody who carries this node's packets, or should,
// does not answer.
func (a *agent) urgent() bool {
	v := a.view.Load()
	if v.plan.Domain == nil {
		return false
	}
	for _, m := range v.plan.Domain.Members {
		if m.Node == a.cfg.NodeName || !slices.Contains(v.plan.Domain.Carriers, m.Node) {
			continue
		}
		if r, ok := a.live.Of(m.Overlay); !ok || r.silent > 0 || r.answered.IsZero() {
			return true
		}
	}
	return false
}

// failoverCounters are the counters of claims.
func (a *agent) failoverCounters() []dataplane.Counter {
	inForce := uint64(0)
	if d := a.view.Load().plan.Domain; d != nil && d.Claim != nil {
		inForce = 1
	}
	t := &a.loop.takeover
	return []dataplane.Counter{
		{Name: "failover_claims_total", Value: t.claims.Load()},
		{Name: "failover_changes_total", Value: t.changes.Load()},
		{Name: "failover_claim_in_force", Value: inForce},
	}
}
