package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/google/go-cmp/cmp"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"corax/control/api/v1beta1"
)

// leases is a namespace of Leases in memory.
type leases struct {
	mu    sync.Mutex // time that passes orders nothing, as the race detector sees it
	t     *testing.T
	now   map[string]string // as JSON
	log   []string          // second, verb, holder, duration
	begin time.Time
	away  bool
	hang  bool // requests get no answer
}

var leaseResource = schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}

func (l *leases) answer(ctx context.Context) error {
	l.mu.Lock()
	hang, away := l.hang, l.away
	l.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if away {
		return errors.New("refused")
	}
	return nil
}

func (l *leases) note(verb, doc string) {
	var d coordinationv1.Lease
	if err := json.Unmarshal([]byte(doc), &d); err != nil {
		l.t.Fatal(err)
	}
	reason := d.Annotations[v1beta1.AnnotationReason]
	if age := time.Since(d.Spec.RenewTime.Time); age != 0 {
		l.t.Errorf("renewTime is %v old", age)
	}
	l.log = append(l.log, strings.TrimSpace(fmt.Sprintf("%.1f %s %q %d %s", time.Since(l.begin).Seconds(), verb, *d.Spec.HolderIdentity, *d.Spec.LeaseDurationSeconds, reason)))
}

func (l *leases) patchLease(ctx context.Context, name string, patch []byte) error {
	if err := l.answer(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	doc, ok := l.now[name]
	if !ok {
		return apierrors.NewNotFound(leaseResource, name)
	}
	after, err := jsonpatch.MergePatch([]byte(doc), patch)
	if err != nil {
		l.t.Fatal(err)
	}
	l.now[name] = string(after)
	l.note("patch", l.now[name])
	return nil
}

func (l *leases) createLease(ctx context.Context, lease *coordinationv1.Lease) error {
	if err := l.answer(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b, err := json.Marshal(lease)
	if err != nil {
		l.t.Fatal(err)
	}
	l.now[lease.Name] = string(b)
	l.note("create", string(b))
	return nil
}

func (l *leases) deleteLease(ctx context.Context, name string) error {
	if err := l.answer(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.now, name)
	l.log = append(l.log, fmt.Sprintf("%.1f delete", time.Since(l.begin).Seconds()))
	return nil
}

// keeping runs a keeper in a bubble, without jitter.
func keeping(t *testing.T, test func(l *leases, k *keeper)) {
	synctest.Test(t, func(t *testing.T) {
		l := &leases{t: t, now: map[string]string{}, begin: time.Now()}
		log := slog.New(slog.DiscardHandler)
		k := newKeeper("me", l, newLink("https://api", log, nil), log)
		k.random = func() float64 { return 0 }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.run(ctx) }()
		test(l, k)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func domain(active string, names ...string) []v1beta1.Gateway {
	g := v1beta1.Gateway{Metadata: v1beta1.ObjectMeta{Name: "g"}}
	for _, n := range names {
		g.Spec.Endpoints = append(g.Spec.Endpoints, v1beta1.Endpoint{NodeName: n, Type: v1beta1.TypeTunnel}, v1beta1.Endpoint{NodeName: n, Type: v1beta1.TypeProxy})
	}
	if active != "" {
		g.Status.ActiveEndpoints = []v1beta1.Endpoint{{NodeName: active, Type: v1beta1.TypeTunnel}}
	}
	return listing([]v1beta1.Gateway{g}, "me")
}

// become sets how the API server answers, and the Lease of this node when it is
// not empty.
func (l *leases) become(away, hang bool, lease string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.away, l.hang = away, hang
	if lease != "" {
		l.now["me"] = lease
	}
}

// take returns what was written since it was asked last.
func (l *leases) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	log := l.log
	l.log = nil
	return log
}

func (l *leases) check(want ...string) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := cmp.Diff(want, l.log); d != "" {
		l.t.Error(d)
	}
	l.log = nil
}

func TestRoleIn(t *testing.T) {
	for _, tt := range []struct {
		name     string
		gateways []v1beta1.Gateway
		role     leaseRole
		alone    bool
	}{
		{"in none", nil, leaseNone, false},
		{"alone, in both types", domain("me", "me"), leaseNone, true},
		{"standby", domain("you", "me", "you"), leaseCandidate, false},
		{"active", domain("me", "me", "you"), leaseActive, false},
		{"nobody is active", domain("", "me", "you"), leaseCandidate, false},
		{"not listed", domain("you", "you"), leaseNone, false},
	} {
		if role, alone := roleIn(tt.gateways, "me"); role != tt.role || alone != tt.alone {
			t.Errorf("%s: %q, %v, want %q, %v", tt.name, role, alone, tt.role, tt.alone)
		}
	}
}

// TestHaste: a standby renews like an active node while that does not answer, and
// stays a standby.
func TestHaste(t *testing.T) {
	keeping(t, func(l *leases, k *keeper) {
		k.gateways.put(domain("you", "me", "you"))
		k.carry.put(carrying{ok: true})
		k.haste.put(false)
		after(9 * time.Second)
		k.haste.put(true)
		after(4 * time.Second)
		k.haste.put(false)
		after(11 * time.Second)
		l.check(`0.0 create "me" 30`, `9.0 patch "me" 30`, `11.0 patch "me" 30`, `13.0 patch "me" 30`, `23.0 patch "me" 30`)
	})
}

func TestPaceOfLeases(t *testing.T) {
	keeping(t, func(l *leases, k *keeper) {
		k.gateways.put(domain("you", "me", "you"))
		after(time.Minute)
		l.check() // nothing is known of the node yet
		k.carry.put(carrying{ok: true})
		after(20 * time.Second)
		l.check(`60.0 create "me" 30`, `70.0 patch "me" 30`, `80.0 patch "me" 30`)
		after(time.Second)
		k.gateways.put(domain("me", "me", "you"))
		after(4 * time.Second)
		l.check(`81.0 patch "me" 6`, `83.0 patch "me" 6`, `85.0 patch "me" 6`)
		if s := k.link.state(); s.Lease != "active" {
			t.Errorf("state %+v", s)
		}
		k.gateways.put(domain("me", "me"))
		after(time.Hour)
		l.check(`85.0 delete`)
		k.gateways.put(domain("me", "me", "you"))
		after(time.Second)
		l.check(`3685.0 create "me" 6`)
	})
}

func TestNoLeaseWithoutAnother(t *testing.T) {
	keeping(t, func(l *leases, k *keeper) {
		k.carry.put(carrying{ok: true})
		k.gateways.put(domain("you", "you"))
		after(time.Minute)
		l.check() // not listed: nothing at all
		l.become(false, false, "{}")
		k.gateways.put(domain("me", "me"))
		after(time.Hour)
		l.check(`60.0 delete`) // of an agent before this one
		k.gateways.put(domain("me", "me"))
		after(time.Hour)
		l.check()
	})
}

func TestWhoCannotCarryLetsGo(t *testing.T) {
	keeping(t, func(l *leases, k *keeper) {
		k.gateways.put(domain("me", "me", "you"))
		k.carry.put(carrying{ok: true})
		after(time.Second)
		k.carry.put(carrying{ok: false, reason: "the tunnel device is not open"})
		after(3 * time.Second)
		l.check(`0.0 create "me" 6`, `1.0 patch "" 6 the tunnel device is not open`, `3.0 patch "" 6 the tunnel device is not open`)
		k.carry.put(carrying{ok: true})
		after(0)
		l.check(`4.0 patch "me" 6`)
		for i := range 10 { // what flaps is not written each time
			k.carry.put(carrying{ok: i%2 == 0, reason: strings.Repeat("x", i%2)})
			after(50 * time.Millisecond)
		}
		l.check(`4.5 patch "" 6 x`)
	})
}

func TestStoppedAgentLetsGo(t *testing.T) {
	var l *leases
	keeping(t, func(got *leases, k *keeper) {
		l = got
		k.gateways.put(domain("me", "me", "you"))
		k.carry.put(carrying{ok: true})
		after(time.Second)
	})
	l.t = t
	l.check(`0.0 create "me" 6`, `1.0 patch "" 6 the agent was stopped`)
}

// goesOn ends an agent that another run follows.
type goesOn struct{}

func (goesOn) Error() string   { return "goes on" }
func (goesOn) Continues() bool { return true }

func TestAgentThatGoesOnKeepsItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &leases{t: t, now: map[string]string{}, begin: time.Now()}
		log := slog.New(slog.DiscardHandler)
		k := newKeeper("me", l, newLink("https://api", log, nil), log)
		k.gateways.put(domain("me", "me", "you"))
		k.carry.put(carrying{ok: true})
		g, ctx := errgroup.WithContext(t.Context())
		g.Go(func() error { return k.run(ctx) })
		after(time.Second)
		var end error = goesOn{}
		g.Go(func() error { return end })
		if err := g.Wait(); !errors.Is(err, end) {
			t.Error(err)
		}
		l.check(`0.0 create "me" 6`)
	})
}

func TestStopDoesNotHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		l := &leases{t: t, now: map[string]string{}, begin: begin}
		log := slog.New(slog.DiscardHandler)
		k := newKeeper("me", l, newLink("https://api", log, nil), log)
		k.gateways.put(domain("me", "me", "you"))
		k.carry.put(carrying{ok: true})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.run(ctx) }()
		after(time.Second)
		l.become(false, true, "")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if d := time.Since(begin); d > 2*time.Second+100*time.Millisecond {
			t.Errorf("stopping took %v", d-time.Second)
		}
	})
}

// TestLeaseAfterAnOutage: the pace stays, and the first answer ends it.
func TestLeaseAfterAnOutage(t *testing.T) {
	keeping(t, func(l *leases, k *keeper) {
		k.gateways.put(domain("me", "me", "you"))
		k.carry.put(carrying{ok: true})
		after(time.Second)
		l.check(`0.0 create "me" 6`)
		l.become(true, false, "")
		after(10 * time.Minute)
		if s := k.link.state(); s.LeaseErr == "" {
			t.Error("the outage is not told")
		}
		l.become(false, true, "")
		after(time.Minute)
		l.become(false, false, "")
		after(2 * time.Second)
		if log := l.take(); len(log) != 1 {
			t.Errorf("%d writes in the 2 s after the outage: %v", len(log), log)
		}
		if s := k.link.state(); s.LeaseErr != "" {
			t.Errorf("the outage is still told: %s", s.LeaseErr)
		}
	})
}

func TestOthersOfTheLeaseStay(t *testing.T) {
	keeping(t, func(l *leases, k *keeper) {
		l.become(false, false, `{"metadata":{"name":"me","labels":{"a":"b"},"annotations":{"c":"d","corax.io/reason":"old"}},"spec":{"leaseTransitions":3}}`)
		k.gateways.put(domain("me", "me", "you"))
		k.carry.put(carrying{ok: true})
		after(time.Second)
		var d coordinationv1.Lease
		if err := json.Unmarshal([]byte(l.now["me"]), &d); err != nil {
			t.Fatal(err)
		}
		if d.Labels["a"] != "b" || d.Spec.LeaseTransitions == nil || cmp.Diff(map[string]string{"c": "d"}, d.Annotations) != "" {
			t.Errorf("got %s", l.now["me"])
		}
	})
}
