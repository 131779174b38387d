package exposure_test

import (
	"maps"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/control/api/v1beta1"
	"corax/control/controller/exposure"
)

func TestPublicIP(t *testing.T) {
	addr := netip.MustParseAddr("198.51.100.1")
	for _, tt := range []struct {
		name, ip, host     string
		node               exposure.Node
		wantIP, wantHost   string
		wantStatus, reason string
	}{
		{"an address", "", "", exposure.Node{External: addr, ExternalName: "n.example.org"}, "198.51.100.1", "", "True", "Published"},
		{"a name", "", "", exposure.Node{ExternalName: "n.example.org"}, "", "n.example.org", "True", "Published"},
		{"a person's address", "203.0.113.7", "", exposure.Node{External: addr}, "203.0.113.7", "", "True", "Published"},
		{"a person's name", "", "p.example.org", exposure.Node{External: addr}, "", "p.example.org", "True", "Published"},
		{"neither", "", "", exposure.Node{}, "", "", "False", "NoAddress"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := hubs("node-1")
			w.Gateway.Spec.ExposeType = v1beta1.ExposePublicIP
			w.nodes["node-1"] = tt.node
			w.Gateway.Spec.Endpoints[0].PublicIP = tt.ip
			if tt.host != "" {
				w.Gateway.Spec.Endpoints[0].Config = map[string]string{"corax.io/public-host": tt.host}
			}
			r := w.settle(t)
			e := r.Endpoints[0]
			if e.PublicIP != tt.wantIP || e.Config["corax.io/public-host"] != tt.wantHost || e.PublicPort != 0 || r.Hold {
				t.Errorf("%+v", e)
			}
			if c := condition(r, "Exposed"); string(c.Status) != tt.wantStatus || c.Reason != tt.reason {
				t.Errorf("%+v", c)
			}
		})
	}
}

// TestPublicIPOfStandbys has a node that is not elected: it gets its address all
// the same, and none of it is a problem when it has none.
func TestPublicIPOfStandbys(t *testing.T) {
	external := netip.MustParseAddr("198.51.100.2")
	for _, tt := range []struct {
		name   string
		change func(*world)
		want   string
	}{
		{"an address", func(*world) {}, "198.51.100.2"},
		{"a person's address", func(w *world) { w.Gateway.Spec.Endpoints[1].PublicIP = "203.0.113.7" }, "203.0.113.7"},
		{"none", func(w *world) { w.nodes["node-2"] = exposure.Node{Name: "node-2"} }, ""},
		{"no node", func(w *world) { delete(w.nodes, "node-2") }, ""},
		{"bad name", func(w *world) {
			w.nodes["node 2"] = w.nodes["node-2"]
			w.Gateway.Spec.Endpoints[1].NodeName = "node 2"
		}, ""},
		{"tunnel mode is off", func(w *world) { w.data = map[string]string{"enable-l3-tunnel": "false"} }, ""},
		{"not exposed", func(w *world) { w.Gateway.Spec.ExposeType = "" }, ""},
		{"exposed by a balancer", func(w *world) { w.Gateway.Spec.ExposeType = v1beta1.ExposeLoadBalancer }, ""},
		{"on its way out", func(w *world) { w.Gateway.DeletionTimestamp = &metav1.Time{Time: start} }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := hubs("node-1", "node-2")
			w.Gateway.Spec.ExposeType = v1beta1.ExposePublicIP
			w.Gateway.Status.ActiveEndpoints = w.Gateway.Status.ActiveEndpoints[:1]
			w.nodes["node-1"] = exposure.Node{Name: "node-1", External: netip.MustParseAddr("198.51.100.1")}
			w.nodes["node-2"] = exposure.Node{Name: "node-2", External: external}
			tt.change(w)
			r := w.settle(t)
			if got := r.Endpoints[1].PublicIP; got != tt.want {
				t.Errorf("publicIP %q, want %q", got, tt.want)
			}
			if c := condition(r, "Exposed"); c.Reason == "NoAddress" {
				t.Errorf("a standby is a problem: %+v", c)
			}
		})
	}
}

// TestPublicIPFollows changes the world after an address was published.
func TestPublicIPFollows(t *testing.T) {
	addr, other := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.9")
	set := func(n exposure.Node) func(*world) { return func(w *world) { w.nodes["node-1"] = n } }
	for _, tt := range []struct {
		name, was        string // was: a person's address from the start
		change           func(*world)
		wantIP, wantHost string
		noted            bool
	}{
		{"nothing", "", func(*world) {}, "198.51.100.1", "", true},
		{"another address", "", set(exposure.Node{External: other}), "198.51.100.9", "", true},
		{"a name instead", "", set(exposure.Node{ExternalName: "n.example.org"}), "", "n.example.org", true},
		{"none any more", "", set(exposure.Node{Name: "node-1"}), "", "", false},
		{"the node is not known", "", func(w *world) { delete(w.nodes, "node-1") }, "198.51.100.1", "", true},
		{"not exposed", "", func(w *world) { w.Gateway.Spec.ExposeType = "" }, "", "", false},
		{"a balancer instead", "", func(w *world) { w.Gateway.Spec.ExposeType = v1beta1.ExposeLoadBalancer }, "", "", false},
		{"a mode off, another address", "", func(w *world) {
			w.data = map[string]string{"enable-l3-tunnel": "false"}
			w.nodes["node-1"] = exposure.Node{External: other}
		}, "198.51.100.9", "", true},
		{"a person's", "203.0.113.7", set(exposure.Node{External: other}), "203.0.113.7", "", false},
		{"a person's, not exposed", "203.0.113.7", func(w *world) { w.Gateway.Spec.ExposeType = "" }, "203.0.113.7", "", false},
		{"a person's as ours, not exposed", "198.51.100.1", func(w *world) { w.Gateway.Spec.ExposeType = "" }, "198.51.100.1", "", false},
		{"a person's later", "", func(w *world) {
			w.Gateway.Spec.Endpoints[0].PublicIP = "203.0.113.7"
			w.nodes["node-1"] = exposure.Node{External: other}
		}, "203.0.113.7", "", false},
		{"a person's later, not exposed", "", func(w *world) {
			w.Gateway.Spec.Endpoints[0].PublicIP = "203.0.113.7"
			w.Gateway.Spec.ExposeType = ""
		}, "203.0.113.7", "", false},
		{"a note that cannot be read", "", func(w *world) {
			w.Gateway.Annotations[v1beta1.AnnotationApplied] = "{"
			w.Gateway.Spec.ExposeType = ""
		}, "198.51.100.1", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := hubs("node-1")
			w.Gateway.Spec.ExposeType = v1beta1.ExposePublicIP
			w.Gateway.Spec.Endpoints[0].Config = map[string]string{"publicKey": "k"}
			w.Gateway.Spec.Endpoints[0].PublicIP = tt.was
			w.nodes["node-1"] = exposure.Node{External: addr}
			w.settle(t)
			tt.change(w)
			r := w.settle(t)
			e := r.Endpoints[0]
			config := map[string]string{"publicKey": "k"}
			if tt.wantHost != "" {
				config["corax.io/public-host"] = tt.wantHost
			}
			if e.PublicIP != tt.wantIP || !maps.Equal(e.Config, config) {
				t.Errorf("%+v", e)
			}
			note := ""
			if tt.noted {
				note = `{"tunnel/node-1":"` + tt.wantIP + tt.wantHost + `"}`
			}
			if diff := cmp.Diff(note, r.Note); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestPublicIPForgets has the entry of a node go: what is said of a later one is
// not ours.
func TestPublicIPForgets(t *testing.T) {
	w := hubs("node-1", "node-2")
	w.Gateway.Spec.ExposeType = v1beta1.ExposePublicIP
	w.nodes["node-2"] = exposure.Node{External: netip.MustParseAddr("198.51.100.2")}
	if r := w.settle(t); r.Note == "" {
		t.Fatal("nothing was noted")
	}
	w.Gateway.Spec.Endpoints = w.Gateway.Spec.Endpoints[:1]
	w.Gateway.Status.ActiveEndpoints = w.Gateway.Status.ActiveEndpoints[:1]
	if r := w.settle(t); r.Note != "" {
		t.Errorf("still noted: %s", r.Note)
	}
}
