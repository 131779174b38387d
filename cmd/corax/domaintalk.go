package main

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"sort"
	"sync"
	"time"

	"corax/control"
	"corax/control/hello"
	"corax/dataplane/key"
)

const (
	// askEvery is how often the listed endpoints are asked who is active, and
	// askSoon how often while one that should be does not answer.
	askEvery = 10 * time.Second
	askSoon  = time.Second
	// askedFor is how long somebody who asked is told of changes, and how long
	// what a listed endpoint said counts: three questions and some.
	askedFor = 35 * time.Second
	// maxAsking bounds the nodes that are told: a domain has fewer.
	maxAsking = 8192
	// tellTimes is how often a change is said, once a second: one may get lost.
	tellTimes = 3
)

// domainView is what a domainTalk must know.
type domainView struct {
	gateway string
	node    string
	domain  *control.Domain // nil: nothing to talk about
	// claim is this node's own, as far as it is in force.
	claim *control.Claim
}

// listed reports whether the node is a listed endpoint.
func (v domainView) listed() bool {
	return v.domain != nil && slices.ContainsFunc(v.domain.Members, func(m control.Member) bool { return m.Node == v.node })
}

// said is what a listed endpoint says: its claim, else what the object does.
func (v domainView) said() hello.Domain {
	d := hello.Domain{Gateway: v.gateway, Node: v.node}
	switch {
	case !v.listed():
	case v.claim != nil:
		d.Listed, d.Epoch, d.Active = true, v.claim.Epoch, v.claim.Active
	default:
		d.Listed, d.Epoch, d.Active = true, v.domain.Epoch, v.domain.Active
	}
	return d
}

// domainTalk tells the nodes of this domain who is active, and hears it. Its
// methods may be called from several goroutines.
type domainTalk struct {
	say func(to netip.Addr, d hello.Domain) error
	// urgent reports whether somebody who should be active does not answer.
	urgent func() bool
	// changed is called when a listed endpoint says something else.
	changed func()
	// heard is told of the key by which a node spoke that has two.
	heard func(key.Public)
	now   func() time.Time

	mu     sync.Mutex
	view   domainView
	told   map[key.Public]told
	asking map[netip.Addr]time.Time // overlay addresses of who asked, and when
	asked  time.Time                // when we did
	again  int                      // how often the last change is still to be said
}

// told is what a listed endpoint said.
type told struct {
	claim control.Claim
	at    time.Time
}

// Run talks until ctx ends.
func (t *domainTalk) Run(ctx context.Context) error {
	tick := time.NewTicker(askSoon)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			t.round()
		}
	}
}

// look takes in a new view.
func (t *domainTalk) look(v domainView) {
	t.mu.Lock()
	news := !equalDomain(t.view.said(), v.said())
	if t.view.gateway != v.gateway {
		clear(t.told)
		t.asked = time.Time{}
	}
	t.view = v
	var to []netip.Addr
	if news && v.listed() {
		t.again = tellTimes
		to = t.audienceLocked()
	}
	t.mu.Unlock()
	t.sayAll(to, v.said())
}

func equalDomain(a, b hello.Domain) bool {
	return a.Gateway == b.Gateway && a.Listed == b.Listed && a.Epoch == b.Epoch && slices.Equal(a.Active, b.Active)
}

// audienceLocked is who is told: the other listed endpoints and who asked.
func (t *domainTalk) audienceLocked() []netip.Addr {
	to := slices.Collect(maps.Keys(t.asking))
	for _, a := range t.othersLocked() {
		if _, there := t.asking[a]; !there {
			to = append(to, a)
		}
	}
	return to
}

// othersLocked are the overlay addresses of the other listed endpoints.
func (t *domainTalk) othersLocked() []netip.Addr {
	var to []netip.Addr
	for _, m := range t.view.domain.Members {
		if m.Node == t.view.node {
			continue
		}
		if to = append(to, m.Overlay); !m.Other.IsZero() {
			to = append(to, m.Other.Overlay())
		}
	}
	return to
}

// memberLocked returns the listed endpoint that speaks from an overlay address,
// and the key that shows it.
func (t *domainTalk) memberLocked(from netip.Addr) (m control.Member, by key.Public, ok bool) {
	for _, m := range t.view.domain.Members {
		switch {
		case m.Node == t.view.node:
		case m.Overlay == from:
			return m, m.Key, true
		case !m.Other.IsZero() && m.Other.Overlay() == from:
			return m, m.Other, true
		}
	}
	return control.Member{}, key.Public{}, false
}

// round is what is due once a second.
func (t *domainTalk) round() {
	now, urgent := t.now(), t.urgent()
	t.mu.Lock()
	lapsed := t.expireLocked(now)
	v := t.view
	if v.domain == nil {
		t.mu.Unlock()
		return
	}
	var tell, ask []netip.Addr
	if every := askEvery; urgent && now.Sub(t.asked) >= askSoon-askSoon/10 || now.Sub(t.asked) >= every {
		t.asked = now
		ask = t.othersLocked()
	}
	switch {
	case !v.listed():
	case t.again > 0:
		t.again--
		tell = t.audienceLocked()
	case v.claim != nil:
		// Whoever comes back must stand down at once.
		tell = t.othersLocked()
	}
	t.mu.Unlock()
	d := v.said()
	t.sayAll(tell, d)
	d.Ask = true
	t.sayAll(ask, d)
	if lapsed {
		t.changed()
	}
}

func (t *domainTalk) expireLocked(now time.Time) (lapsed bool) {
	for a, at := range t.asking {
		if now.Sub(at) > askedFor {
			delete(t.asking, a)
		}
	}
	for k, x := range t.told {
		if now.Sub(x.at) > askedFor {
			delete(t.told, k)
			lapsed = true
		}
	}
	return lapsed
}

func (t *domainTalk) sayAll(to []netip.Addr, d hello.Domain) {
	for _, a := range to {
		_ = t.say(a, d) // it is said again
	}
}

// take hears what a node of the domain says. That it may say so, its address
// shows: listed endpoints are known by their keys.
func (t *domainTalk) take(from netip.Addr, d hello.Domain) {
	t.mu.Lock()
	v, now := t.view, t.now()
	if v.domain == nil || d.Gateway != v.gateway {
		t.mu.Unlock()
		return
	}
	changed := false
	m, by, known := t.memberLocked(from)
	if known && d.Listed {
		c := control.Claim{Gateway: d.Gateway, Epoch: d.Epoch, Active: d.Active, From: by}
		old, had := t.told[by]
		changed = !had || !old.claim.Equal(c)
		t.told[by] = told{c, now}
	}
	answer := d.Ask && v.listed()
	if answer && (len(t.asking) < maxAsking || !t.asking[from].IsZero()) {
		t.asking[from] = now
	}
	t.mu.Unlock()
	if known && !m.Other.IsZero() {
		t.heard(by)
	}
	if answer {
		t.sayAll([]netip.Addr{from}, v.said())
	}
	if changed {
		t.changed()
	}
}

// claims are what the listed endpoints of this domain say.
func (t *domainTalk) claims() []control.Claim {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []control.Claim
	for _, x := range t.told {
		out = append(out, x.claim)
	}
	return out
}

// nodes returns up to n plain nodes that asked lately, those that asked last
// first, and whether one asked after since.
func (t *domainTalk) nodes(n int, since time.Time) (out []netip.Addr, heard bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for a, at := range t.asking {
		if t.view.domain != nil {
			if _, _, listed := t.memberLocked(a); listed {
				continue
			}
		}
		out = append(out, a)
		heard = heard || at.After(since)
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := out[i], out[j]
		return cmp.Or(t.asking[b].Compare(t.asking[a]), bytes.Compare(a.AsSlice(), b.AsSlice())) < 0
	})
	return out[:min(n, len(out))], heard
}
