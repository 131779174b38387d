//go:build linux

package kube_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"corax/control/controller/election"
	"corax/control/kube/gateway"
	"corax/dataplane/key"
	"corax/integration/kube/cluster"
)

// site is one domain with agents that are not there: they publish a key and keep
// Leases, as the real ones do, and carry nothing.
type site struct {
	t    *testing.T
	c    *cluster.Cluster
	name string // of the Gateway
	g    gateways
	// standby is the duration of the Leases of those who are not active.
	standby time.Duration

	mu      sync.Mutex
	agents  map[string]*agent
	history []moment
	gateway gateway.Gateway // as it was seen last
}

// agent is one of a site. Its fields are guarded by the site's mu.
type agent struct {
	frozen  bool   // says nothing, as a dead one
	reason  string // why it cannot carry; empty: it can
	renewed time.Time
	wrote   string // what the last renewal said
}

// moment is a state of the Gateway that somebody could see.
type moment struct {
	at     time.Time
	active string // nodes of type tunnel
	epoch  int
}

// newSite runs agents on nodes until the test ends.
func newSite(t *testing.T, c *cluster.Cluster, name string, nodes ...string) *site {
	t.Helper()
	s := &site{t: t, c: c, name: name, g: gatewaysOf(t, c.Config()), standby: 30 * time.Second, agents: map[string]*agent{}}
	for _, n := range nodes {
		s.agents[n] = &agent{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	t.Cleanup(func() { cancel(); group.Wait() })
	group.Go(func() { s.watch(ctx) })
	for _, n := range nodes {
		group.Go(func() { s.live(ctx, n) })
	}
	return s
}

// watch notes what the Gateway says, as often as it changes.
func (s *site) watch(ctx context.Context) {
	for ctx.Err() == nil {
		s.follow(ctx)
		pause(ctx, 100*time.Millisecond)
	}
}

func (s *site) follow(ctx context.Context) {
	w, err := s.g.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + s.name})
	if err != nil {
		return
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if u, ok := e.Object.(*unstructured.Unstructured); ok {
			s.note(u)
		}
	}
}

func (s *site) note(u *unstructured.Unstructured) {
	var g gateway.Gateway
	b, err := u.MarshalJSON()
	if err != nil || json.Unmarshal(b, &g) != nil {
		return
	}
	epoch, _ := strconv.Atoi(g.Annotations["corax.io/epoch"])
	m := moment{time.Now(), strings.Join(election.Active(g.Status.ActiveEndpoints, "tunnel"), ","), epoch}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gateway = g
	if n := len(s.history); n == 0 || s.history[n-1].active != m.active || s.history[n-1].epoch != m.epoch {
		s.history = append(s.history, m)
	}
}

// live is an agent's life.
func (s *site) live(ctx context.Context, node string) {
	for ; ctx.Err() == nil; pause(ctx, 100*time.Millisecond) {
		s.publish(ctx, node)
		if l := s.due(node); l != nil {
			_ = s.renew(ctx, l) // an API server that is away is asked again
		}
	}
}

// publish writes the node's key where it is listed without one.
func (s *site) publish(ctx context.Context, node string) {
	s.mu.Lock()
	var ops []gateway.Op
	for i, e := range s.gateway.Spec.Endpoints {
		if e.NodeName == node && e.Config == nil && !s.agents[node].frozen {
			ops = append(ops,
				gateway.Op{Op: "test", Path: gateway.Pointer("spec", "endpoints", i, "nodeName"), Value: node},
				gateway.Op{Op: "test", Path: gateway.Pointer("spec", "endpoints", i, "config")},
				gateway.Op{Op: "add", Path: gateway.Pointer("spec", "endpoints", i, "config"), Value: map[string]string{"publicKey": testKey(node)}})
		}
	}
	s.mu.Unlock()
	if ops != nil {
		_ = s.g.patch(ctx, s.name, types.JSONPatchType, ops)
	}
}

// testKey is a public key of a node.
func testKey(node string) string {
	var k key.Public
	copy(k[:], "the public key of node "+node+" and some more")
	return k.String()
}

// due returns the node's Lease when it is time to write it.
func (s *site) due(node string) *coordinationv1.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.agents[node]
	listed, active := false, false
	for _, e := range s.gateway.Spec.Endpoints {
		listed = listed || e.NodeName == node
	}
	for _, e := range s.gateway.Status.ActiveEndpoints {
		active = active || e.NodeName == node
	}
	duration := s.standby
	if active {
		duration = 6 * time.Second
	}
	every := duration / 3
	for _, e := range s.gateway.Status.ActiveEndpoints {
		if other := s.agents[e.NodeName]; other != nil && other.frozen {
			every = 2 * time.Second // it pings the active ones, and makes haste
		}
	}
	says := fmt.Sprint(active, a.reason)
	if a.frozen || !listed || a.wrote == says && time.Since(a.renewed) < every {
		return nil
	}
	now := metav1.NowMicro()
	seconds, holder := int32(duration/time.Second), node
	l := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "corax-leases", Name: node},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &now},
	}
	if a.reason != "" {
		holder = ""
		l.Annotations = map[string]string{"corax.io/reason": a.reason}
	}
	a.renewed, a.wrote = now.Time, says
	return l
}

func (s *site) renew(ctx context.Context, l *coordinationv1.Lease) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	leases := s.c.Client.CoordinationV1().Leases(l.Namespace)
	b, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": l.Annotations}, "spec": l.Spec})
	if err != nil {
		return err
	}
	_, err = leases.Patch(ctx, l.Name, types.MergePatchType, b, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		_, err = leases.Create(ctx, l, metav1.CreateOptions{})
	}
	return err
}

// set changes an agent.
func (s *site) set(node string, do func(*agent)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do(s.agents[node])
}

// now returns what was seen last.
func (s *site) now() (gateway.Gateway, moment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.history) == 0 {
		return s.gateway, moment{}
	}
	return s.gateway, s.history[len(s.history)-1]
}

// since returns what was seen since a time, with what was the case then.
func (s *site) since(from time.Time) []moment {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := max(0, slices.IndexFunc(append(slices.Clone(s.history), moment{at: time.Now()}), func(m moment) bool {
		return m.at.After(from)
	})-1)
	return slices.Clone(s.history[i:])
}

// unbroken checks that since a time somebody was always active, and that the epoch
// never fell.
func (s *site) unbroken(from time.Time) {
	s.t.Helper()
	last := 0
	for _, m := range s.since(from) {
		if m.active == "" || m.epoch < last {
			s.t.Errorf("at %s: active %q, epoch %d after %d", m.at.Format("15:04:05.000"), m.active, m.epoch, last)
		}
		last = m.epoch
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
