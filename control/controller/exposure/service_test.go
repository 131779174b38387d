package exposure_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"corax/control/api/v1beta1"
	"corax/control/controller/exposure"
)

func TestNewService(t *testing.T) {
	w := hubs("node-1")
	w.ClusterID = "c1234"
	w.data = map[string]string{"acl-id": "acl-1", "acl-entry": "47.1.2.3/32,100.64.0.0/10"}
	r := w.run()
	if !r.Hold || len(r.Create) != 1 || len(r.CreateSlices) != 0 {
		t.Fatalf("%+v", r)
	}
	got := r.Create[0]
	if !regexp.MustCompile(`^x-raven-tunnel-svc-cloud-[0-9a-f]{8}$`).MatchString(got.Name) {
		t.Errorf("name %q", got.Name)
	}
	const alibaba = "service.beta.kubernetes.io/alibaba-cloud-loadbalancer-"
	annotations := map[string]string{
		"svc.openyurt.io/discard": "true",
		alibaba + "name":          "k8s/raven-agent-ds/kube-system/c1234",
		alibaba + "acl-status":    "on", alibaba + "acl-id": "acl-1", alibaba + "acl-type": "white",
	}
	ranges := []string{"47.1.2.3/32", "100.64.0.0/10"}
	note, err := json.Marshal(map[string]any{"annotations": annotations, "ranges": ranges})
	if err != nil {
		t.Fatal(err)
	}
	annotations["corax.io/applied"] = string(note)
	want := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name: got.Name, Namespace: "kube-system", Annotations: annotations,
			Labels: map[string]string{
				"raven.openyurt.io/gateway": "cloud", "raven.openyurt.io/gateway-type": "tunnel",
				"raven.openyurt.io/endpoints-name": "node-1", "app.kubernetes.io/managed-by": "corax-controller",
			},
		},
		Spec: corev1.ServiceSpec{
			Type: "LoadBalancer", ExternalTrafficPolicy: "Local", LoadBalancerSourceRanges: ranges,
			Ports: []corev1.ServicePort{
				{Name: "tunnel", Protocol: "UDP", Port: 4500, TargetPort: intstr.FromInt32(4500)},
				{Name: "tls", Protocol: "TCP", Port: 10280, TargetPort: intstr.FromInt32(10280)},
			},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWhichHubs(t *testing.T) {
	ports := func(udp, tcp int32) map[corev1.Protocol]int32 {
		return map[corev1.Protocol]int32{"UDP": udp, "TCP": tcp}
	}
	proxy := func(w *world) {
		for _, list := range [][]v1beta1.Endpoint{w.Gateway.Spec.Endpoints, w.Gateway.Status.ActiveEndpoints} {
			list[0].Type, list[0].Port = v1beta1.TypeProxy, 10262
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*world)
		want   map[corev1.Protocol]int32 // of node-1; nil: no Service
	}{
		{"a tunnel endpoint", func(*world) {}, ports(4500, 10280)},
		{"a proxy endpoint, whose port is Raven's", proxy, ports(4500, 10280)},
		{"a port of its own", func(w *world) { w.Gateway.Spec.Endpoints[0].Port = 4600 }, ports(4600, 4600)},
		{"a port for the fallback", func(w *world) {
			w.Gateway.Spec.Endpoints[0].Config = map[string]string{"corax.io/tls-port": "443"}
		}, ports(4500, 443)},
		{"ports that are none", func(w *world) {
			w.Gateway.Spec.Endpoints[0].Port = 70000
			w.Gateway.Spec.Endpoints[0].Config = map[string]string{"corax.io/tls-port": "x"}
		}, ports(4500, 10280)},
		{"only in status", func(w *world) {
			w.Gateway.Spec.Endpoints = nil
			w.Gateway.Status.ActiveEndpoints[0].Port = 4700
		}, ports(4700, 4700)},
		{"nobody is active", func(w *world) { w.Gateway.Status.ActiveEndpoints = nil }, nil},
		{"not exposed", func(w *world) { w.Gateway.Spec.ExposeType = "" }, nil},
		{"exposed by its own address", func(w *world) { w.Gateway.Spec.ExposeType = "PublicIP" }, nil},
		{"an unknown type", func(w *world) { w.Gateway.Status.ActiveEndpoints[0].Type = "vpn" }, nil},
		{"tunnel mode off", func(w *world) { w.data = map[string]string{"enable-l3-tunnel": "false"} }, nil},
		{"tunnel mode off, a proxy", func(w *world) {
			proxy(w)
			w.data = map[string]string{"enable-l3-tunnel": "false", "enable-l7-proxy": "true"}
		}, ports(4500, 10280)},
		{"both modes off", func(w *world) {
			proxy(w)
			w.data = map[string]string{"enable-l3-tunnel": "false", "enable-l7-proxy": "false"}
		}, nil},
		{"no replicas", func(w *world) { w.Gateway.Spec.TunnelConfig = &v1beta1.TunnelConfiguration{} }, nil},
		{"being deleted", func(w *world) { w.Gateway.DeletionTimestamp = &metav1.Time{Time: start} }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := hubs("node-1")
			tt.change(w)
			r := w.run()
			if tt.want == nil {
				if len(r.Create) != 0 || r.Hold {
					t.Errorf("made %v, hold %v", r.Create, r.Hold)
				}
				return
			}
			if len(r.Create) != 1 || !r.Hold {
				t.Fatalf("made %d, hold %v", len(r.Create), r.Hold)
			}
			if diff := cmp.Diff(tt.want, portsOf(r.Create[0])); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOneServicePerNode(t *testing.T) {
	w := hubs("node-1", "node-2")
	both := v1beta1.Endpoint{NodeName: "node-1", Type: v1beta1.TypeProxy, Port: 10262}
	w.Gateway.Spec.Endpoints = append([]v1beta1.Endpoint{both}, w.Gateway.Spec.Endpoints...)
	w.Gateway.Status.ActiveEndpoints = append([]v1beta1.Endpoint{both}, w.Gateway.Status.ActiveEndpoints...)
	w.Gateway.Spec.Endpoints[1].Port = 4501
	w.settle(t)
	if len(w.Services) != 2 || len(w.Slices) != 2 {
		t.Fatalf("%d Services, %d slices", len(w.Services), len(w.Slices))
	}
	if p := portsOf(w.service(t, "node-1", false)); p["UDP"] != 4501 {
		t.Errorf("the port of the tunnel entry does not count: %v", p)
	}
	cloud(w.service(t, "node-1", false), "203.0.113.1", "")
	r := w.settle(t)
	for i, want := range []string{"203.0.113.1:4501", "203.0.113.1:4501", ""} {
		e := r.Endpoints[i]
		if want == "" && e.PublicIP == "" && e.PublicPort == 0 {
			continue
		}
		if e.PublicIP != "203.0.113.1" || e.PublicPort != 4501 || e.Config["corax.io/tls-port"] != "4501" {
			t.Errorf("entry %d: %+v, want %q", i, e, want)
		}
	}
}

func TestNames(t *testing.T) {
	name := regexp.MustCompile(`^[a-z]([-a-z0-9]*[a-z0-9])?$`)
	seen := map[string]bool{}
	for _, tt := range []struct{ gateway, prefix string }{
		{"cloud", "x-raven-tunnel-svc-cloud-"},
		{strings.Repeat("a", 35), "x-raven-tunnel-svc-" + strings.Repeat("a", 35) + "-"},
		{strings.Repeat("a", 36), "x-raven-tunnel-svc-" + strings.Repeat("a", 26) + "-"},
		{"gw.with.dots", "x-raven-tunnel-svc-gwwithdots-"},
		{"gwwithdots", "x-raven-tunnel-svc-gwwithdots-"},
	} {
		w := hubs("node-1", "node-2")
		w.Gateway.Name = tt.gateway
		r := w.run()
		if len(r.Create) != 2 {
			t.Fatalf("%s: made %d", tt.gateway, len(r.Create))
		}
		for _, s := range r.Create {
			if !strings.HasPrefix(s.Name, tt.prefix) || !name.MatchString(s.Name) || len(s.Name) > 63 || seen[s.Name] {
				t.Errorf("%s: %q", tt.gateway, s.Name)
			}
			seen[s.Name] = true
		}
		if again := w.run(); again.Create[0].Name != r.Create[0].Name {
			t.Errorf("%s: %s, then %s", tt.gateway, r.Create[0].Name, again.Create[0].Name)
		}
		// A name that is taken by something else is left to it.
		w.Services = []corev1.Service{{ObjectMeta: metav1.ObjectMeta{Name: r.Create[0].Name}}}
		if again := w.run(); again.Create[0].Name == r.Create[0].Name {
			t.Errorf("%s: the taken name %s is used", tt.gateway, r.Create[0].Name)
		}
	}
	w := hubs("node-1")
	w.Gateway.Name = strings.Repeat("a", 64)
	if r := w.run(); len(r.Create) != 0 || condition(r, "Exposed").Reason != "BadName" {
		t.Errorf("a name that is no label: %+v", r.Conditions)
	}
	w = hubs(strings.Repeat("n", 64), "node-2")
	if r := w.run(); len(r.Create) != 1 || condition(r, "Exposed").Reason != "BadName" {
		t.Errorf("a node's name that is no label: %+v", r)
	}
}

// TestMixedProtocols steps through what a cloud may do with two protocols.
func TestMixedProtocols(t *testing.T) {
	type step struct {
		now  time.Duration
		do   func(t *testing.T, w *world)
		want map[string]map[corev1.Protocol]int32 // ports by "main" and "second"
	}
	mixed := map[corev1.Protocol]int32{"UDP": 4500, "TCP": 10280}
	udp, tcp := map[corev1.Protocol]int32{"UDP": 4500}, map[corev1.Protocol]int32{"TCP": 10280}
	none := func(*testing.T, *world) {}
	give := func(t *testing.T, w *world) { cloud(w.service(t, "node-1", false), "203.0.113.1", "") }
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"takes both", []step{
			{0, none, map[string]map[corev1.Protocol]int32{"main": mixed}},
			{time.Minute, give, map[string]map[corev1.Protocol]int32{"main": mixed}},
			{time.Hour, none, map[string]map[corev1.Protocol]int32{"main": mixed}},
		}},
		{"gives no address for two minutes", []step{
			{0, none, map[string]map[corev1.Protocol]int32{"main": mixed}},
			{2*time.Minute - 1, none, map[string]map[corev1.Protocol]int32{"main": mixed}},
			{2 * time.Minute, none, map[string]map[corev1.Protocol]int32{"main": udp}},
			{3 * time.Minute, give, map[string]map[corev1.Protocol]int32{"main": udp, "second": tcp}},
			{time.Hour, none, map[string]map[corev1.Protocol]int32{"main": udp, "second": tcp}},
		}},
		{"gives an address and loses it", []step{
			{time.Minute, give, map[string]map[corev1.Protocol]int32{"main": mixed}},
			{time.Hour, func(t *testing.T, w *world) {
				w.service(t, "node-1", false).Status.LoadBalancer.Ingress = nil
			}, map[string]map[corev1.Protocol]int32{"main": mixed}},
		}},
		{"says that it refuses", []step{
			{time.Second, func(t *testing.T, w *world) {
				s := w.service(t, "node-1", false)
				s.Status.Conditions = []metav1.Condition{{Type: corev1.LoadBalancerPortsError, Status: "True"}}
			}, map[string]map[corev1.Protocol]int32{"main": udp}},
		}},
		{"refuses one port", []step{
			{time.Second, func(t *testing.T, w *world) {
				s, no := w.service(t, "node-1", false), "MixedProtocolNotSupported"
				s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{
					IP: "203.0.113.1", Ports: []corev1.PortStatus{{Port: 10280, Protocol: "TCP", Error: &no}},
				}}
			}, map[string]map[corev1.Protocol]int32{"main": udp, "second": tcp}},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := hubs("node-1")
			w.settle(t)
			for _, s := range tt.steps {
				w.Now = start.Add(s.now)
				s.do(t, w)
				r := w.settle(t)
				got := map[string]map[corev1.Protocol]int32{}
				for i := range w.Services {
					kind := "main"
					if w.Services[i].Annotations["corax.io/protocols"] == "TCP" {
						kind = "second"
					}
					got[kind] = portsOf(&w.Services[i])
				}
				if diff := cmp.Diff(s.want, got); diff != "" {
					t.Errorf("at %s: %s", s.now, diff)
				}
				if left := 2*time.Minute - s.now; left > 0 && len(w.service(t, "node-1", false).Status.LoadBalancer.Ingress) == 0 && r.Again != left {
					t.Errorf("at %s: again in %s", s.now, r.Again)
				}
			}
		})
	}
}

func TestSecondService(t *testing.T) {
	w := hubs("node-1")
	w.Gateway.Spec.Endpoints[0].Config = map[string]string{"corax.io/tls-port": "443"}
	w.settle(t)
	w.Now = start.Add(2 * time.Minute)
	w.settle(t)
	cloud(w.service(t, "node-1", false), "203.0.113.1", "")
	w.settle(t)
	second := w.service(t, "node-1", true)
	if second.Spec.LoadBalancerIP != "203.0.113.1" {
		t.Errorf("it asks for %q", second.Spec.LoadBalancerIP)
	}
	cloud(second, "203.0.113.1", "")
	if c := condition(w.settle(t), "Exposed"); c.Status != "True" {
		t.Errorf("with one address: %+v", c)
	}
	cloud(w.service(t, "node-1", true), "203.0.113.99", "")
	if c := condition(w.settle(t), "Exposed"); c.Reason != "FallbackElsewhere" {
		t.Errorf("with another address: %+v", c)
	}
	// The next hub does not wait for two minutes to find the same out.
	w.Gateway.Spec.Endpoints = append(w.Gateway.Spec.Endpoints, v1beta1.Endpoint{NodeName: "node-2", Type: v1beta1.TypeTunnel})
	w.Gateway.Status.ActiveEndpoints = append(w.Gateway.Status.ActiveEndpoints, w.Gateway.Spec.Endpoints[1])
	w.nodes["node-2"] = exposure.Node{Name: "node-2", Addrs: w.nodes["node-1"].Addrs}
	w.settle(t)
	if p := portsOf(w.service(t, "node-2", false)); len(p) != 1 || p["UDP"] != 4500 {
		t.Errorf("the second hub has %v", p)
	}
	// Both go with their hub.
	w.Gateway.Status.ActiveEndpoints = nil
	w.settle(t)
	if len(w.Services)+len(w.Slices) != 0 {
		t.Errorf("left: %v", w.Services)
	}
}
