package exposure_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/control/api/v1beta1"
	"corax/control/controller/exposure"
)

func TestPublish(t *testing.T) {
	entry := func(ip string, port int, config map[string]string) v1beta1.Endpoint {
		return v1beta1.Endpoint{NodeName: "node-1", Type: "tunnel", Port: 4500, PublicIP: ip, PublicPort: port, Config: config}
	}
	for _, tt := range []struct {
		name string
		was  v1beta1.Endpoint
		data map[string]string
		give []corev1.LoadBalancerIngress
		want v1beta1.Endpoint
	}{
		{"no address yet", entry("", 0, nil), nil, nil, entry("", 0, nil)},
		{"no address any more", entry("203.0.113.1", 4500, nil), nil, nil, entry("203.0.113.1", 4500, nil)},
		{"an address", entry("", 0, nil), nil, []corev1.LoadBalancerIngress{{IP: "203.0.113.1"}}, entry("203.0.113.1", 4500, nil)},
		{"IPv6", entry("", 0, nil), nil, []corev1.LoadBalancerIngress{{IP: "2001:db8::1"}}, entry("2001:db8::1", 4500, nil)},
		{
			"another address", entry("203.0.113.9", 9, map[string]string{"publicKey": "k"}), nil,
			[]corev1.LoadBalancerIngress{{IP: "203.0.113.1"}},
			entry("203.0.113.1", 4500, map[string]string{"publicKey": "k"}),
		},
		{
			"a name", entry("", 0, nil), nil,
			[]corev1.LoadBalancerIngress{{Hostname: "lb.example.org"}},
			entry("", 4500, map[string]string{"corax.io/public-host": "lb.example.org"}),
		},
		{
			"a name instead of an address", entry("203.0.113.9", 4500, nil), nil,
			[]corev1.LoadBalancerIngress{{Hostname: "lb.example.org"}},
			entry("", 4500, map[string]string{"corax.io/public-host": "lb.example.org"}),
		},
		{
			"an address after a name", entry("", 0, nil), nil,
			[]corev1.LoadBalancerIngress{{Hostname: "lb.example.org"}, {IP: "203.0.113.1"}},
			entry("203.0.113.1", 4500, nil),
		},
		{"garbage", entry("", 0, nil), nil, []corev1.LoadBalancerIngress{{IP: "x"}, {Hostname: "-"}, {IP: "127.0.0.1"}}, entry("", 0, nil)},
		{
			"a public address bound to the balancer", entry("", 0, nil),
			map[string]string{"loadbalancer-ip": "192.168.0.1", "eip-ip": "47.1.2.3"},
			[]corev1.LoadBalancerIngress{{IP: "192.168.0.1"}},
			entry("47.1.2.3", 4500, nil),
		},
		{
			"one bound to another balancer", entry("", 0, nil),
			map[string]string{"loadbalancer-ip": "192.168.0.2", "eip-ip": "47.1.2.3"},
			[]corev1.LoadBalancerIngress{{IP: "192.168.0.1"}},
			entry("192.168.0.1", 4500, nil),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := hubs("node-1")
			w.data = tt.data
			w.settle(t)
			w.Gateway.Spec.Endpoints[0] = tt.was
			w.service(t, "node-1", false).Status.LoadBalancer.Ingress = tt.give
			r := w.settle(t)
			if diff := cmp.Diff(tt.want, r.Endpoints[0]); diff != "" {
				t.Fatal(diff)
			}
			// Not exposed any more: what was published goes, before the Service.
			w.Gateway.Spec.ExposeType = ""
			r = w.run()
			if len(r.Delete) != 1 || !r.Hold {
				t.Errorf("delete %d, hold %v", len(r.Delete), r.Hold)
			}
			e := r.Endpoints[0]
			if len(tt.give) > 0 && (e.PublicIP != "" || e.Config["corax.io/public-host"] != "" || e.PublicPort != 0) {
				t.Errorf("the entry still says %+v", e)
			}
			if e.Config["publicKey"] != tt.was.Config["publicKey"] {
				t.Errorf("the key went too: %+v", e)
			}
			if r = w.settle(t); r.Hold || len(w.Services)+len(w.Slices)+len(r.Conditions) != 0 {
				t.Errorf("left: %+v", r)
			}
		})
	}
}

// TestUnpublishKeepsOthers checks that only what the Service published is cleared.
func TestUnpublishKeepsOthers(t *testing.T) {
	w := hubs("node-1")
	w.Gateway.Spec.Endpoints[0].Config = map[string]string{"corax.io/tls-port": "443"}
	w.settle(t)
	cloud(w.service(t, "node-1", false), "203.0.113.1", "")
	w.settle(t)
	w.Gateway.Spec.ExposeType = v1beta1.ExposePublicIP
	w.Gateway.Spec.Endpoints[0].PublicIP, w.Gateway.Spec.Endpoints[0].PublicPort = "198.51.100.1", 4500
	e := w.settle(t).Endpoints[0]
	if e.PublicIP != "198.51.100.1" || e.PublicPort != 4500 || e.Config["corax.io/tls-port"] != "443" {
		t.Errorf("what a person wrote is gone: %+v", e)
	}
}

func TestSlices(t *testing.T) {
	w := hubs("node-1")
	w.nodes["node-1"] = exposure.Node{Name: "node-1", Addrs: []netip.Addr{
		netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("2001:db8::1"),
	}}
	w.settle(t)
	s := w.service(t, "node-1", false)
	got := map[string]string{}
	for _, e := range w.Slices {
		if e.Name != s.Name+map[string]string{"IPv4": "-ipv4", "IPv6": "-ipv6"}[string(e.AddressType)] ||
			e.Labels["kubernetes.io/service-name"] != s.Name ||
			e.Labels["endpointslice.kubernetes.io/managed-by"] != "corax-controller" ||
			len(e.OwnerReferences) != 1 || e.OwnerReferences[0].UID != s.UID || e.OwnerReferences[0].Name != s.Name {
			t.Errorf("%+v", e)
		}
		if len(e.Endpoints) != 1 || len(e.Endpoints[0].Addresses) != 1 || *e.Endpoints[0].NodeName != "node-1" || !*e.Endpoints[0].Conditions.Ready {
			t.Fatalf("%+v", e.Endpoints)
		}
		got[string(e.AddressType)] = e.Endpoints[0].Addresses[0]
		ports := map[string]int32{}
		for _, p := range e.Ports {
			ports[*p.Name+"/"+string(*p.Protocol)] = *p.Port
		}
		if diff := cmp.Diff(map[string]int32{"tunnel/UDP": 4500, "tls/TCP": 10280}, ports); diff != "" {
			t.Error(diff)
		}
	}
	if diff := cmp.Diff(map[string]string{"IPv4": "10.0.0.1", "IPv6": "2001:db8::1"}, got); diff != "" {
		t.Error(diff)
	}
	// The node gets another address, and loses one.
	w.nodes["node-1"] = exposure.Node{Name: "node-1", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.9")}}
	w.settle(t)
	if len(w.Slices) != 1 || w.Slices[0].Endpoints[0].Addresses[0] != "10.0.0.9" {
		t.Errorf("%+v", w.Slices)
	}
	delete(w.nodes, "node-1")
	if c := condition(w.settle(t), "Exposed"); len(w.Slices) != 0 || c.Reason != "NoNode" {
		t.Errorf("%+v; %+v", w.Slices, c)
	}
}

// TestTerminating checks that a Service on its way out neither serves nor is
// deleted again, and that the hub gets a new one with another name.
func TestTerminating(t *testing.T) {
	w := hubs("node-1")
	w.settle(t)
	old := w.service(t, "node-1", false)
	old.DeletionTimestamp = &metav1.Time{Time: start}
	r := w.run()
	if len(r.Create) != 1 || r.Create[0].Name == old.Name || len(r.Delete) != 0 || len(r.DeleteSlices) != 1 {
		t.Errorf("%+v", r)
	}
	w.Gateway.DeletionTimestamp = &metav1.Time{Time: start}
	if r := w.run(); r.Hold || len(r.Create)+len(r.Delete) != 0 {
		t.Errorf("it holds the Gateway: %+v", r)
	}
}
