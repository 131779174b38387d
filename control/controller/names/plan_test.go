package names_test

import (
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"corax/control/api/v1beta1"
	"corax/control/controller/exposure"
	"corax/control/controller/names"
	"corax/control/kube/gateway"
)

func active(g v1beta1.Gateway, nodes ...string) gateway.Gateway {
	for _, n := range nodes {
		g.Status.ActiveEndpoints = append(g.Status.ActiveEndpoints,
			v1beta1.Endpoint{NodeName: n, Type: v1beta1.TypeProxy}, v1beta1.Endpoint{NodeName: n, Type: v1beta1.TypeTunnel})
	}
	return *gateway.FromPlain(g)
}

func TestDecide(t *testing.T) {
	addrs := func(node string) []netip.Addr {
		if node == "gone" {
			return nil
		}
		return []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	}
	on := exposure.Settings{Proxy: true, Tunnel: true}
	const kubelet = "10250=10281"
	for _, tt := range []struct {
		name        string
		gateways    []gateway.Gateway
		settings    exposure.Settings
		on          bool
		fronts      []string
		annotations map[string]string
	}{
		{"none", nil, on, false, nil, map[string]string{}},
		{
			"one exposed",
			[]gateway.Gateway{active(gw("cloud", "", "", ""), "n2", "n1"), active(gw("edge-a", "", "", ""), "e")},
			on, true,
			[]string{"n2", "n1"},
			map[string]string{"cloud": kubelet},
		},
		{"nobody active", []gateway.Gateway{active(gw("cloud", "", "", ""))}, on, true, nil, map[string]string{"cloud": kubelet}},
		{"the node is gone", []gateway.Gateway{active(gw("cloud", "", "", kubelet), "gone")}, on, true, nil, map[string]string{}},
		{
			"two exposed",
			[]gateway.Gateway{active(gw("a", "9100", "", ""), "n1"), active(gw("b", "9100", "", kubelet+",9100=10285"), "n1", "n2")},
			on, true,
			[]string{"n1", "n2"},
			map[string]string{"a": kubelet + ",9100=10285"},
		},
		{"none exposed", []gateway.Gateway{active(gw("edge-a", "", "", kubelet), "e")}, on, false, nil, map[string]string{"edge-a": ""}},
		{"the proxy is off", []gateway.Gateway{active(gw("cloud", "", "", ""), "n1")}, exposure.Settings{Tunnel: true}, false, nil, map[string]string{}},
		{"switched off, the map stays", []gateway.Gateway{active(gw("cloud", "9100", "", kubelet+",9100=10290"), "n1")}, exposure.Settings{}, false, nil, map[string]string{}},
		{"no replicas", []gateway.Gateway{func() gateway.Gateway {
			g := active(gw("cloud", "", "", ""), "n1")
			g.Spec.ProxyConfig.Replicas = 0
			return g
		}()}, on, false, nil, map[string]string{}},
		{"being deleted", []gateway.Gateway{func() gateway.Gateway {
			g := active(gw("cloud", "", "", ""), "n1")
			g.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
			return g
		}()}, on, false, nil, map[string]string{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := names.Decide(tt.gateways, tt.settings, addrs)
			var fronts []string
			for _, f := range p.Fronts {
				fronts = append(fronts, f.Node)
			}
			if p.On != tt.on || !slices.Equal(fronts, tt.fronts) {
				t.Errorf("on %v, fronts %v", p.On, fronts)
			}
			if diff := cmp.Diff(tt.annotations, p.Annotations); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestService(t *testing.T) {
	m := names.PortMap{TLS: map[uint16]uint16{10250: 10281, 9100: 10285}, HTTP: []uint16{10255}}
	port := func(name string, number, target int32) corev1.ServicePort {
		return corev1.ServicePort{Name: name, Protocol: "TCP", Port: number, TargetPort: intstr.FromInt32(target)}
	}
	ours := []corev1.ServicePort{port("https-9100", 9100, 10285), port("https-10250", 10250, 10281), port("http-10255", 10255, 10282)}
	fresh := names.Service("kube-system", nil, m)
	want := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name: "x-raven-proxy-internal-svc", Namespace: "kube-system",
			Labels: map[string]string{"app": "raven", "app.kubernetes.io/managed-by": "corax-controller"},
		},
		Spec: corev1.ServiceSpec{Type: "ClusterIP", Ports: ours},
	}
	if diff := cmp.Diff(want, fresh); diff != "" {
		t.Error(diff)
	}
	have := want.DeepCopy()
	have.Labels["theirs"] = "1"
	have.Spec.ClusterIP = "10.96.0.7"
	have.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicy)
	have.Spec.Ports = []corev1.ServicePort{
		port("https-10250", 10250, 10263), port("https-1234", 1234, 10263), port("theirs", 22, 22), port("clash", 9100, 1), port("https-x", 23, 23),
	}
	was := have.DeepCopy()
	got := names.Service("kube-system", have, m)
	if diff := cmp.Diff(was, have); diff != "" {
		t.Errorf("the argument was changed: %s", diff)
	}
	want = have.DeepCopy()
	want.Spec.Ports = append(slices.Clone(ours), port("theirs", 22, 22), port("https-x", 23, 23))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestUsable(t *testing.T) {
	for _, tt := range []struct {
		spec corev1.ServiceSpec
		want bool
	}{
		{corev1.ServiceSpec{Type: "ClusterIP"}, true},
		{corev1.ServiceSpec{}, true},
		{corev1.ServiceSpec{Type: "ExternalName"}, false},
		{corev1.ServiceSpec{Type: "ClusterIP", Selector: map[string]string{"a": "b"}}, false},
	} {
		if got := names.Usable(&corev1.Service{Spec: tt.spec}); got != tt.want {
			t.Errorf("%+v: %v", tt.spec, got)
		}
	}
	if a := names.ClusterIP(&corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: "None"}}); a.IsValid() {
		t.Errorf("a headless Service has %s", a)
	}
}

func TestSlices(t *testing.T) {
	ip := netip.MustParseAddr
	s := names.Service("kube-system", nil, names.PortMap{})
	s.UID = "u"
	m := names.PortMap{TLS: map[uint16]uint16{10250: 10281}, HTTP: []uint16{10255}}
	list := names.Slices(s, []names.Front{
		{Node: "b", Addrs: []netip.Addr{ip("10.0.0.2")}}, {Node: "a", Addrs: []netip.Addr{ip("2001:db8::1"), ip("10.0.0.1"), ip("10.0.0.9")}},
	}, m)
	got := map[string][]string{}
	for _, e := range list {
		if e.Labels["kubernetes.io/service-name"] != s.Name || e.Labels["endpointslice.kubernetes.io/managed-by"] != "corax-controller" || e.OwnerReferences[0].UID != "u" {
			t.Errorf("%+v", e)
		}
		for _, x := range e.Endpoints {
			got[e.Name] = append(got[e.Name], *x.NodeName+" "+x.Addresses[0])
		}
		for _, p := range e.Ports {
			got[e.Name] = append(got[e.Name], *p.Name+" "+string(*p.Protocol)+" "+strconv.Itoa(int(*p.Port)))
		}
	}
	ports := []string{"https-10250 TCP 10281", "http-10255 TCP 10282"}
	want := map[string][]string{
		"x-raven-proxy-internal-svc-ipv4": append([]string{"a 10.0.0.1", "b 10.0.0.2"}, ports...),
		"x-raven-proxy-internal-svc-ipv6": append([]string{"a 2001:db8::1"}, ports...),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if list := names.Slices(s, nil, m); len(list) != 0 {
		t.Errorf("without fronts: %v", list)
	}
}

func TestEdge(t *testing.T) {
	made := func(id string) *v1beta1.Gateway {
		g := gw("edge-made", "", "", "")
		g.Metadata.Labels = map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy}
		g.Metadata.Annotations = map[string]string{v1beta1.AnnotationDomain: id}
		return &g
	}
	exposed, hidden := gw("theirs", "", "", ""), gw("edge-theirs", "", "", "")
	gateways := map[string]*v1beta1.Gateway{
		"cloud": made("cloud"), "pool": made("pool/a"), "solo": made("node/x"), "exposed": &exposed, "hidden": &hidden,
	}
	p := names.Places{DomainLabel: "pool", CloudDomains: []string{"master-pool"}, Gateway: func(n string) *v1beta1.Gateway { return gateways[n] }}
	const gatewayLabel, edge = v1beta1.LabelGateway, "openyurt.io/is-edge-worker"
	for _, tt := range []struct {
		name   string
		labels map[string]string
		want   bool
	}{
		{"nothing known", nil, false},
		{"our cloud", map[string]string{gatewayLabel: "cloud", "pool": "a"}, false},
		{"our pool", map[string]string{gatewayLabel: "pool"}, true},
		{"our solo node", map[string]string{gatewayLabel: "solo"}, true},
		{"control plane in a pool", map[string]string{gatewayLabel: "pool", "node-role.kubernetes.io/control-plane": ""}, false},
		{"a person's exposed Gateway", map[string]string{gatewayLabel: "exposed"}, false},
		{"a person's exposed Gateway, edge node", map[string]string{gatewayLabel: "exposed", edge: "true"}, true},
		{"a person's hidden Gateway", map[string]string{gatewayLabel: "hidden"}, true},
		{"no Gateway, edge node", map[string]string{edge: "true"}, true},
		{"no Gateway, cloud node", map[string]string{edge: "false"}, false},
		{"no Gateway, a domain", map[string]string{"pool": "a"}, true},
		{"no Gateway, a cloud domain", map[string]string{"pool": "master-pool"}, false},
	} {
		if got := p.Edge(tt.labels); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// TestServingNames must say what fronts ask for, to the letter: the agents' side has
// the same test.
func TestServingNames(t *testing.T) {
	for _, domain := range []string{"cluster.local", "k8s.example.org"} {
		const of = "x-raven-proxy-internal-svc"
		want := []string{of, of + ".kube-system", of + ".kube-system.svc", of + ".kube-system.svc." + domain}
		if diff := cmp.Diff(want, names.ServingNames("kube-system", domain)); diff != "" {
			t.Error(diff)
		}
	}
}
