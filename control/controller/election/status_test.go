package election

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/control/api/v1beta1"
	"corax/control/kube/gateway"
)

const key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

// keyed returns entries of both types with a key.
func keyed(line string) []v1beta1.Endpoint {
	list := entries(line)
	for i := range list {
		list[i].Config = map[string]string{v1beta1.ConfigPublicKey: key}
	}
	return list
}

// statusOf elects and makes the status, as the reconciler does.
func statusOf(g *gateway.Gateway, d Domain, tunnel, proxy bool, now time.Time) gateway.Status {
	p := g.Plain()
	d.Endpoints = g.Spec.Endpoints
	modes := []Mode{d.Vote(&p, v1beta1.TypeTunnel, tunnel), d.Vote(&p, v1beta1.TypeProxy, proxy)}
	return Status(g, d, modes, metav1.NewTime(now))
}

func TestUnbound(t *testing.T) {
	g := &gateway.Gateway{}
	now := time.Unix(1_700_000_000, 0)
	for _, unbound := range []bool{false, true, true, false} {
		g.Status = statusOf(g, Domain{Unbound: unbound}, true, true, now)
		c := meta.FindStatusCondition(g.Status.Conditions, gateway.ConditionBound)
		if (c != nil) != unbound || c != nil && c.Status != metav1.ConditionFalse {
			t.Errorf("unbound %v: %+v", unbound, c)
		}
		now = now.Add(time.Hour)
		if again := statusOf(g, Domain{Unbound: unbound}, true, true, now); !equality.Semantic.DeepEqual(again, g.Status) {
			t.Errorf("an idle Gateway is written: %+v", again)
		}
	}
}

func TestStatus(t *testing.T) {
	g := &gateway.Gateway{}
	g.Name = "pool"
	g.Annotations = map[string]string{v1beta1.AnnotationExtraCIDRs: "10.9.0.0/16, 10.1.0.0/24"}
	g.Spec.ExposeType = v1beta1.ExposeLoadBalancer
	g.Spec.Endpoints = keyed("b a")
	g.Spec.Endpoints[0].PublicIP = "192.0.2.7"
	g.Status.Conditions = []metav1.Condition{{Type: "Exposed", Status: metav1.ConditionTrue, Reason: "Published"}}
	d := Domain{Nodes: []Node{
		{Name: "a", Ready: true, PrivateIP: "10.0.0.1", Subnets: []string{"10.1.1.0/24", "fd01:1::/64"}},
		{Name: "b", Ready: true, PrivateIP: "10.0.0.2", Subnets: []string{"10.1.0.0/24"}},
		{Name: "c"},
	}}
	now := time.Unix(1_700_000_000, 0)
	got := statusOf(g, d, true, true, now)
	tunnel, proxy := g.Spec.Endpoints[0], g.Spec.Endpoints[1]
	tunnel.Config = map[string]string{v1beta1.ConfigPublicKey: key, v1beta1.ConfigEnableTunnel: "true"}
	proxy.Config = map[string]string{v1beta1.ConfigPublicKey: key, v1beta1.ConfigEnableProxy: "true"}
	want := gateway.Status{
		GatewayStatus: v1beta1.GatewayStatus{
			Nodes: []v1beta1.NodeInfo{
				{NodeName: "a", PrivateIP: "10.0.0.1", Subnets: []string{"10.1.1.0/24", "fd01:1::/64"}},
				{NodeName: "b", PrivateIP: "10.0.0.2", Subnets: []string{"10.1.0.0/24", "10.9.0.0/16"}},
				{NodeName: "c", Subnets: []string{}},
			},
			ActiveEndpoints: []v1beta1.Endpoint{proxy, tunnel},
		},
		Conditions: []metav1.Condition{
			{Type: "Exposed", Status: metav1.ConditionTrue, Reason: "Published"},
			{
				Type: gateway.ConditionReady, Status: metav1.ConditionTrue, Reason: ReasonActive,
				Message: "tunnel: 1 of 1 active: b; proxy: 1 of 1 active: b", LastTransitionTime: metav1.NewTime(now),
			},
		},
		Summary: &gateway.Summary{Active: "b", Expose: "LoadBalancer 192.0.2.7", Nodes: 3, Ready: "2/2"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if _, has := g.Spec.Endpoints[0].Config[v1beta1.ConfigEnableTunnel]; has {
		t.Error("the flag went into spec")
	}
	// A list that is null is refused by the API server.
	b, _ := json.Marshal(got.Nodes[2])
	if s := string(b); s != `{"nodeName":"c","privateIP":"","subnets":[]}` {
		t.Errorf("a node without anything is written as %s", s)
	}
	// An hour later nothing is to be written.
	g.Status = got
	is := *g
	is.Status = statusOf(g, d, true, true, now.Add(time.Hour))
	if p, err := gateway.StatusPatch(g, &is); err != nil || p != nil {
		t.Errorf("nothing happened, and %s is written (%v)", p, err)
	}
}

func TestReadyCondition(t *testing.T) {
	zero := 0
	for _, tt := range []struct {
		name    string
		nodes   string
		entries []v1beta1.Endpoint
		active  string
		lease   map[string]State
		off     bool
		proxies *int
		want    metav1.ConditionStatus
		reason  string
		message string
	}{
		{name: "off", nodes: "a", entries: keyed("a"), off: true, want: "False", reason: ReasonDisabled, message: "both modes are off"},
		{
			name: "no entries", nodes: "a", want: "False", reason: ReasonNoEndpoints,
			message: "tunnel: spec.endpoints lists no node; proxy: spec.endpoints lists no node",
		},
		{
			name: "one mode off", nodes: "a", entries: keyed("a"), proxies: &zero, want: "True", reason: ReasonActive,
			message: "tunnel: 1 of 1 active: a",
		},
		{
			name: "no key", nodes: "a", entries: entries("a"), proxies: &zero, want: "False", reason: ReasonNoPublicKey,
			message: "tunnel: 1 of 1 active: a; a no public key published",
		},
		{
			name: "nobody eligible", nodes: "a b", entries: keyed("a b"), proxies: &zero, active: "a",
			lease: map[string]State{"a": Lapsed, "b": Released}, want: "False", reason: ReasonNoneEligible,
			message: "tunnel: no candidate is eligible (a agent dead: Lease lapsed, b carries no traffic); a stays active",
		},
		{
			name: "a standby is dead", nodes: "a b", entries: keyed("a b"), proxies: &zero, active: "a",
			lease: map[string]State{"a": Fresh, "b": Lapsed}, want: "True", reason: ReasonActive,
			message: "tunnel: 1 of 1 active: a; not eligible: b agent dead: Lease lapsed",
		},
		{
			name: "cordoned without another", nodes: "a:c", entries: keyed("a"), proxies: &zero, want: "True", reason: ReasonDegraded,
			message: "tunnel: 1 of 1 active: a; a cordoned",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := &gateway.Gateway{}
			g.Spec.Endpoints = tt.entries
			if tt.proxies != nil {
				g.Spec.ProxyConfig = &v1beta1.ProxyConfiguration{Replicas: *tt.proxies}
			}
			if tt.active != "" {
				g.Status.ActiveEndpoints = []v1beta1.Endpoint{{NodeName: tt.active, Type: v1beta1.TypeTunnel}}
			}
			d := Domain{Nodes: nodes(t, tt.nodes), Standing: func(n string) Standing { return Standing{State: tt.lease[n]} }}
			s := statusOf(g, d, !tt.off, !tt.off, time.Time{})
			want := []metav1.Condition{{Type: gateway.ConditionReady, Status: tt.want, Reason: tt.reason, Message: tt.message}}
			if d := cmp.Diff(want, s.Conditions, cmpopts.IgnoreFields(metav1.Condition{}, "LastTransitionTime")); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestConditionTellsOfBadCIDRs(t *testing.T) {
	g := &gateway.Gateway{}
	g.Spec.Endpoints = keyed("a")
	g.Annotations = map[string]string{v1beta1.AnnotationExtraCIDRs: "10.9.0.0/16,bogus"}
	s := statusOf(g, Domain{Nodes: nodes(t, "a")}, true, false, time.Time{})
	want := `tunnel: 1 of 1 active: a; annotation raven.openyurt.io/extra-allowed-source-cidrs: not a CIDR: "bogus"`
	if got := s.Conditions[0].Message; got != want {
		t.Errorf("message is %q, want %q", got, want)
	}
	if got := s.Nodes[0].Subnets; !slices.Equal(got, []string{"10.9.0.0/16"}) {
		t.Errorf("the good one is not applied: %v", got)
	}
}

func TestEpoch(t *testing.T) {
	ab := entries("a b")
	mark := func(list []v1beta1.Endpoint) string { return fingerprint(list) }
	for _, tt := range []struct {
		name        string
		annotations map[string]string
		active      []v1beta1.Endpoint
		want        string // epoch; empty: nothing is written
	}{
		{name: "nobody yet"},
		{name: "the first", active: ab, want: "1"},
		{name: "the same", annotations: map[string]string{v1beta1.AnnotationEpoch: "7", v1beta1.AnnotationEpochOf: mark(ab)}, active: ab},
		{
			name: "the same in another order, with other values", active: []v1beta1.Endpoint{
				{NodeName: "b", Type: "proxy"},
				{NodeName: "a", Type: "proxy", PublicIP: "192.0.2.1"},
				{NodeName: "b", Type: "tunnel"},
				{NodeName: "a", Type: "tunnel", Port: 1},
			},
			annotations: map[string]string{v1beta1.AnnotationEpoch: "7", v1beta1.AnnotationEpochOf: mark(ab)},
		},
		{name: "another set", annotations: map[string]string{v1beta1.AnnotationEpoch: "7", v1beta1.AnnotationEpochOf: mark(ab)}, active: ab[:1], want: "8"},
		{name: "the last one went", annotations: map[string]string{v1beta1.AnnotationEpoch: "7", v1beta1.AnnotationEpochOf: mark(ab)}, want: "8"},
		{name: "an epoch of somebody else", annotations: map[string]string{v1beta1.AnnotationEpoch: "7"}, active: ab, want: "8"},
		{name: "an epoch that is none", annotations: map[string]string{v1beta1.AnnotationEpoch: "x"}, active: ab, want: "1"},
		{
			name: "it does not wrap around", active: ab, want: "18446744073709551615",
			annotations: map[string]string{v1beta1.AnnotationEpoch: "18446744073709551615"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := &v1beta1.Gateway{Metadata: v1beta1.ObjectMeta{Annotations: tt.annotations}}
			g.Status.ActiveEndpoints = tt.active
			got := Epoch(g)
			if got[v1beta1.AnnotationEpoch] != tt.want {
				t.Errorf("epoch %q, want %q", got[v1beta1.AnnotationEpoch], tt.want)
			}
			if got != nil {
				g.Metadata.Annotations = got
				if again := Epoch(g); again != nil {
					t.Errorf("raised again: %v", again)
				}
			}
		})
	}
}

func TestChanges(t *testing.T) {
	before := entries("a x/proxy")
	modes := []Mode{
		{Type: v1beta1.TypeTunnel, Seats: Seats{Active: []string{"b"}, Lost: map[string]string{"a": CauseLapsed}}},
		{Type: v1beta1.TypeProxy, Seats: Seats{Active: []string{"a"}, Lost: map[string]string{"x": handedOver + CauseCordoned}}},
	}
	var got []string
	for _, c := range Changes(before, modes) {
		got = append(got, c.Reason()+" "+c.String())
	}
	want := []string{
		"ActiveEndpointLost node a is no active tunnel endpoint any more: agent dead: Lease lapsed; active now: b",
		"ActiveEndpointLost node x is no active proxy endpoint any more: handed over: cordoned; active now: a",
		"ActiveEndpointElected node b is an active tunnel endpoint",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	for cause, hard := range map[string]bool{
		CauseLapsed: true, CauseGone: true, CauseNotReady: true, CauseNoTraffic + ": x": true, CauseUnlisted: true,
		CauseOff: false, CauseSurplus: false, handedOver + CauseNotReady: false,
	} {
		if Hard(cause) != hard {
			t.Errorf("Hard(%q) is %v", cause, !hard)
		}
	}
}
