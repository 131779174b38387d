package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"corax/control/api/v1beta1"
	"corax/control/controller/domain"
	"corax/control/controller/election"
	"corax/control/controller/exposure"
	"corax/control/kube/gateway"
)

const (
	// statusGap is the least time between two writes of a Gateway's status. One
	// that replaces a dead endpoint does not wait for the others.
	statusGap = 2 * time.Second
	// emptyGrace is how long a new Gateway without nodes is left alone: they are
	// labelled after it was made.
	emptyGrace = 10 * time.Second
	// doubtPeriod is how often a lapse in doubt is looked at, and lapseMost how
	// long it stays in doubt where no tunnel shows standbys that they are needed.
	doubtPeriod = 500 * time.Millisecond
	lapseMost   = 2 * time.Second
	// staleRetry is when to look again after the cache was behind the API server.
	staleRetry = 100 * time.Millisecond
)

// electorate lists candidates in our Gateways, elects among the candidates of all,
// and writes their status.
type electorate struct {
	client client.Client // reads from the cache
	api    client.Reader // not the cache
	guard  *guard
	events events.EventRecorder
	log    *slog.Logger
	cfg    Config

	tracker election.Tracker
	blocks  blocks
	queue   queue

	mu    sync.Mutex
	known map[string]*memory
}

// memory is what is remembered of a Gateway between two reconciles.
type memory struct {
	wrote, hurried time.Time // the last write of the status, and of an urgent one
	seated         []string  // whom the tracker was told to be active
}

// domainState is one reconcile's view.
type domainState struct {
	g        *gateway.Gateway
	election election.Domain
	settings exposure.Settings
}

// Reconcile brings one Gateway's endpoints, status and epoch up to date.
func (r *electorate) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	g := &gateway.Gateway{}
	if err := r.client.Get(ctx, req.NamespacedName, g); err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(req.Name)
		}
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if g.DeletionTimestamp != nil {
		r.forget(req.Name)
		return reconcile.Result{}, nil
	}
	if ok, again := r.guard.Allows(ctx, g); !ok {
		return reconcile.Result{RequeueAfter: again}, nil
	}
	again, err := r.bring(ctx, g)
	if errors.Is(err, errStale) {
		return reconcile.Result{RequeueAfter: staleRetry}, nil
	}
	return reconcile.Result{RequeueAfter: again}, err
}

// bring does the work on a Gateway that exists. It returns when to come back; zero:
// when something happens.
func (r *electorate) bring(ctx context.Context, g *gateway.Gateway) (time.Duration, error) {
	s, wait, err := r.gather(ctx, g)
	if err != nil || wait > 0 {
		return wait, err
	}
	age := time.Since(g.CreationTimestamp.Time)
	if len(s.election.Nodes) == 0 && len(g.Spec.Endpoints) == 0 && age >= 0 && age < emptyGrace {
		return emptyGrace - age, nil
	}
	// A list that cannot be written must not keep a dead endpoint active.
	listed := r.list(ctx, s)
	if errors.Is(listed, errStale) {
		return 0, listed
	}
	modes, err := r.vote(ctx, s)
	if err != nil {
		return 0, errors.Join(listed, err)
	}
	wait, err = r.write(ctx, s, modes)
	if err != nil {
		return 0, errors.Join(listed, err)
	}
	if err := r.raise(ctx, s.g); err != nil {
		return 0, errors.Join(listed, err)
	}
	return sooner(sooner(wait, r.settling(s.g, modes)), sooner(unconfirmed(s.g), doubting(s.g, modes))), listed
}

// gather reads what the election follows from. A wait means that something is not
// known yet.
func (r *electorate) gather(ctx context.Context, g *gateway.Gateway) (*domainState, time.Duration, error) {
	s := &domainState{g: g}
	var list corev1.NodeList
	err := r.client.List(ctx, &list, client.MatchingFields{nodesByGateway: g.Name}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, 0, fmt.Errorf("list nodes: %w", err)
	}
	nodes := make([]election.Node, 0, len(list.Items))
	for i := range list.Items {
		n := election.ReadNode(&list.Items[i])
		if n.Calico {
			switch known, blind := r.blocks.known(); {
			case blind:
				n.Subnets = subnetsIn(g, n.Name, n.Subnets)
			case !known:
				return nil, staleRetry, nil
			default:
				n.Subnets = r.blocks.of(n.Name, n.Subnets)
			}
		}
		nodes = append(nodes, n)
	}
	election.SortNodes(nodes)
	if s.settings, err = readSettings(ctx, r.client, r.cfg.Namespace); err != nil {
		return nil, 0, err
	}
	now := time.Now()
	r.seat(now, g)
	tunnel := s.settings.Tunnel && election.Replicas(&g.Spec, v1beta1.TypeTunnel) > 0
	s.election = election.Domain{
		Nodes: nodes, Endpoints: g.Spec.Endpoints, Standing: r.tracker.Standing,
		Outlived: func(dead, other string) bool {
			// Without tunnels nobody tells standbys to make haste.
			return r.tracker.Outlived(dead, other) || !tunnel && r.tracker.LapsedFor(dead) > lapseMost
		},
		Settled: func(node string) bool { _, ok := r.tracker.Settled(now, node); return ok },
		Holder:  r.holder(ctx, g.Name), Unbound: r.cfg.Unbound,
	}
	return s, 0, nil
}

// subnetsIn returns the subnets that status has of a node, but for those that an
// annotation adds to a gateway node; else the others.
func subnetsIn(g *gateway.Gateway, node string, otherwise []string) []string {
	plain := g.Plain()
	extra, _ := election.ExtraCIDRs(&plain) // status says what is wrong with it
	for i := range g.Status.Nodes {
		if n := &g.Status.Nodes[i]; n.NodeName == node && len(n.Subnets) > 0 {
			return slices.DeleteFunc(slices.Clone(n.Subnets), func(s string) bool { return slices.Contains(extra, s) })
		}
	}
	return otherwise
}

// list brings spec.endpoints of a Gateway of ours up to date.
func (r *electorate) list(ctx context.Context, s *domainState) error {
	plain := s.g.Plain()
	if domain.Of(&plain) == "" {
		return nil
	}
	w := election.Want{
		Nodes: s.election.Nodes, Endpoints: s.g.Spec.Endpoints, Ours: candidatesOf(s.g),
		UnderNAT: domain.UnderNAT(&plain),
	}
	for i := range s.g.Status.ActiveEndpoints {
		w.Active = append(w.Active, s.g.Status.ActiveEndpoints[i].NodeName)
	}
	for _, m := range []struct {
		kind string
		on   bool
	}{{v1beta1.TypeTunnel, s.settings.Tunnel}, {v1beta1.TypeProxy, s.settings.Proxy}} {
		if m.on && election.Replicas(&s.g.Spec, m.kind) > 0 {
			w.Types = append(w.Types, m.kind)
		}
	}
	if p := s.g.Spec.ProxyConfig; p != nil && p.Replicas > 1 && !ownReplicas(s.g) {
		w.MinProxies = p.Replicas
	}
	s.election.Passing = w.Passing()
	l := election.Candidates(w)
	if l.Same(w.Ours) {
		return nil
	}
	if err := r.patchList(ctx, s.g, l); err != nil {
		return err
	}
	s.election.Endpoints = s.g.Spec.Endpoints
	return nil
}

// vote elects. Nobody loses a seat for a Lease that lapsed before the API server
// itself was asked: the watch may be behind.
func (r *electorate) vote(ctx context.Context, s *domainState) ([]election.Mode, error) {
	plain := s.g.Plain()
	elect := func() []election.Mode {
		return []election.Mode{
			s.election.Vote(&plain, v1beta1.TypeTunnel, s.settings.Tunnel),
			s.election.Vote(&plain, v1beta1.TypeProxy, s.settings.Proxy),
		}
	}
	modes := elect()
	var asked []string
	for _, m := range modes {
		for node, why := range m.Seats.Lost {
			if why != election.CauseLapsed || slices.Contains(asked, node) {
				continue
			}
			asked = append(asked, node)
			if err := r.ask(ctx, node); err != nil {
				return nil, fmt.Errorf("confirm that the Lease of %s lapsed: %w", node, err)
			}
		}
	}
	if len(asked) > 0 {
		modes = elect()
	}
	return modes, nil
}

// write writes the status, unless that was done a moment ago; then it returns when
// to come back.
func (r *electorate) write(ctx context.Context, s *domainState, modes []election.Mode) (time.Duration, error) {
	is := *s.g
	is.Status = election.Status(s.g, s.election, modes, metav1.Now())
	if equality.Semantic.DeepEqual(s.g.Status, is.Status) { // most often, and cheaper to see than in JSON
		return 0, nil
	}
	patch, err := gateway.StatusPatch(s.g, &is)
	if err != nil || patch == nil {
		return 0, err
	}
	now, urgent := time.Now(), urgent(s.g, modes)
	if wait := r.pause(now, s.g.Name, urgent); wait > 0 {
		return wait, nil
	}
	changes := election.Changes(s.g.Status.ActiveEndpoints, modes)
	if err := r.patchStatus(ctx, s.g, patch); err != nil {
		return 0, err
	}
	r.wrote(now, s.g.Name, urgent)
	r.seat(now, s.g)
	r.tell(s.g, changes)
	return 0, nil
}

// urgent reports whether an endpoint was lost that carries nothing any more, or one
// is found where nobody was active.
func urgent(g *gateway.Gateway, modes []election.Mode) bool {
	for _, m := range modes {
		if len(m.Seats.Active) > 0 && len(election.Active(g.Status.ActiveEndpoints, m.Type)) == 0 {
			return true
		}
		for _, why := range m.Seats.Lost {
			if election.Hard(why) {
				return true
			}
		}
	}
	return false
}

// tell raises an event for each change.
func (r *electorate) tell(g *gateway.Gateway, changes []election.Change) {
	layer := map[string]string{v1beta1.TypeTunnel: "Tunnel", v1beta1.TypeProxy: "Proxy"}
	for _, c := range changes {
		kind, action := corev1.EventTypeNormal, "Elect"
		if !c.Elected {
			kind, action = corev1.EventTypeWarning, "Replace"
		}
		// Events that differ in nothing but their words are shown as one.
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: c.Node}}
		r.events.Eventf(g, node, kind, c.Reason(), action+layer[c.Type], "%s", c)
		r.log.Info("active endpoints changed", "gateway", g.Name, "node", c.Node, "type", c.Type,
			"active", c.Elected, "cause", c.Cause)
	}
}

// settling returns how long until an endpoint that hands over may go.
func (r *electorate) settling(g *gateway.Gateway, modes []election.Mode) time.Duration {
	var wait time.Duration
	for _, m := range modes {
		if len(m.Seats.Leaving) == 0 {
			continue
		}
		for _, node := range election.Active(g.Status.ActiveEndpoints, m.Type) {
			left, _ := r.tracker.Settled(time.Now(), node)
			wait = sooner(wait, left)
		}
	}
	return wait
}

// doubting returns when to look again whether a Lease that lapsed counts; zero:
// there is none in doubt.
func doubting(g *gateway.Gateway, modes []election.Mode) time.Duration {
	for _, m := range modes {
		present := election.Active(g.Status.ActiveEndpoints, m.Type)
		for _, c := range m.Candidates {
			if c.Doubtful && slices.Contains(present, c.Node) {
				return doubtPeriod
			}
		}
	}
	return 0
}

// candidatesOf returns the nodes that we listed.
func candidatesOf(g *gateway.Gateway) []string {
	list := g.Annotations[v1beta1.AnnotationCandidates]
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// ownReplicas reports whether proxyConfig.Replicas is what the controller wrote.
func ownReplicas(g *gateway.Gateway) bool {
	wrote := strings.Split(g.Annotations[v1beta1.AnnotationReplicas], ",")
	return slices.Contains(wrote, fmt.Sprintf("%s=%d", v1beta1.TypeProxy, g.Spec.ProxyConfig.Replicas))
}

// sooner returns the shorter of two waits, where zero means never.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
