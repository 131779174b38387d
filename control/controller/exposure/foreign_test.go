package exposure_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/control/api/v1beta1"
)

const alibaba = "service.beta.kubernetes.io/alibaba-cloud-loadbalancer-"

// TestForeignFields checks that what somebody else set, or removed, stays so.
func TestForeignFields(t *testing.T) {
	w := hubs("node-1")
	w.ClusterID = "c1"
	w.data = map[string]string{"acl-id": "acl-1", "acl-entry": "100.64.0.0/10"}
	w.settle(t)
	s := w.service(t, "node-1", false)
	s.Annotations["example.org/theirs"] = "1"
	s.Annotations[alibaba+"acl-type"] = "black"
	delete(s.Annotations, alibaba+"name")
	s.Labels["theirs"] = "1"
	s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	s.Spec.HealthCheckNodePort = 30123
	s.Spec.Ports[0].NodePort = 30001
	s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "theirs", Protocol: "TCP", Port: 22})
	want := s.DeepCopy()
	w.data["acl-id"] = "acl-2"
	w.Gateway.Spec.Endpoints[0].Port = 4600
	w.settle(t)
	got := w.service(t, "node-1", false)
	want.Annotations[alibaba+"acl-id"] = "acl-2"
	want.Annotations[v1beta1.AnnotationApplied] = got.Annotations[v1beta1.AnnotationApplied]
	want.Spec.Ports[0].Port, want.Spec.Ports[1].Port = 4600, 4600
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// What is ours, and not wanted any more, goes; what became theirs stays.
	delete(w.data, "acl-id")
	w.settle(t)
	got = w.service(t, "node-1", false)
	for key, value := range map[string]string{"acl-id": "", "acl-status": "", "acl-type": "black", "name": ""} {
		if got.Annotations[alibaba+key] != value {
			t.Errorf("%s is %q", key, got.Annotations[alibaba+key])
		}
	}
}

func TestAllowList(t *testing.T) {
	w := hubs("node-1")
	ranges := func() []string { return w.service(t, "node-1", false).Spec.LoadBalancerSourceRanges }
	for _, tt := range []struct {
		name, list     string
		change         func(*corev1.Service)
		want           []string
		status, reason string
	}{
		{"none", "", nil, nil, "", ""},
		{"one", "100.64.0.0/10", nil, []string{"100.64.0.0/10"}, "True", "Applied"},
		{"without the balancer", "47.0.0.0/8", nil, []string{"47.0.0.0/8"}, "True", "Warning"},
		{"refused", "47.0.0.0/8,x", nil, []string{"47.0.0.0/8"}, "False", "Refused"},
		{"good again", "48.0.0.0/8,100.64.0.0/10", nil, []string{"48.0.0.0/8", "100.64.0.0/10"}, "True", "Applied"},
		{"sources are hidden by kube-proxy", "100.64.0.0/10", func(s *corev1.Service) {
			s.Spec.ExternalTrafficPolicy = "Cluster"
		}, []string{"100.64.0.0/10"}, "True", "OnlyTheBalancer"},
		{"sources are hidden by the balancer", "100.64.0.0/10", func(s *corev1.Service) {
			s.Spec.ExternalTrafficPolicy = "Local"
			proxy := corev1.LoadBalancerIPModeProxy
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.1", IPMode: &proxy}}
		}, []string{"100.64.0.0/10"}, "True", "OnlyTheBalancer"},
		{"sources are seen again", "100.64.0.0/10", func(s *corev1.Service) {
			vip := corev1.LoadBalancerIPModeVIP
			s.Status.LoadBalancer.Ingress[0].IPMode = &vip
		}, []string{"100.64.0.0/10"}, "True", "Applied"},
		{"emptied", "", nil, nil, "", ""},
		{"set by somebody else", "100.64.0.0/10", func(s *corev1.Service) {
			s.Spec.LoadBalancerSourceRanges = []string{"10.0.0.0/8"}
		}, []string{"10.0.0.0/8"}, "True", "SetBySomebodyElse"},
	} {
		w.data = map[string]string{"acl-entry": tt.list}
		if tt.change != nil {
			tt.change(w.service(t, "node-1", false))
		}
		c := condition(w.settle(t), "AllowList")
		if !slices.Equal(ranges(), tt.want) || string(c.Status) != tt.status || c.Reason != tt.reason {
			t.Errorf("%s: %v, %+v", tt.name, ranges(), c)
		}
	}
}

// TestNewHubWhileListIsRefused: the last list that was good counts, and without
// one nobody is let in.
func TestNewHubWhileListIsRefused(t *testing.T) {
	w := hubs("node-1", "node-2")
	w.Gateway.Spec.Endpoints[1].Port = 4501
	second := w.Gateway.Status.ActiveEndpoints[1]
	w.Gateway.Status.ActiveEndpoints = w.Gateway.Status.ActiveEndpoints[:1]
	w.data = map[string]string{"acl-entry": "x"}
	if r := w.settle(t); len(w.Services) != 0 || condition(r, "Exposed").Reason != "AllowListUnknown" {
		t.Fatalf("%v, %+v", w.Services, r.Conditions)
	}
	w.data["acl-entry"] = "100.64.0.0/10"
	w.settle(t)
	w.data["acl-entry"] = "x"
	w.Gateway.Status.ActiveEndpoints = append(w.Gateway.Status.ActiveEndpoints, second)
	w.settle(t)
	if got := w.service(t, "node-2", false).Spec.LoadBalancerSourceRanges; !slices.Equal(got, []string{"100.64.0.0/10"}) {
		t.Errorf("the new Service lets in %v", got)
	}
}

func TestSharedBalancer(t *testing.T) {
	w := hubs("node-1", "node-2")
	w.ClusterID = "c1"
	w.data = map[string]string{"loadbalancer-id": "lb-1"}
	r := w.settle(t)
	if c := condition(r, "Exposed"); len(w.Services) != 1 || c.Reason != "PortInUse" || !strings.Contains(c.Message, "4500") {
		t.Fatalf("two hubs at one port: %d Services, %+v", len(w.Services), c)
	}
	w.Gateway.Spec.Endpoints[1].Port = 4501
	w.settle(t)
	for _, n := range []string{"node-1", "node-2"} {
		s := w.service(t, n, false)
		if s.Annotations[alibaba+"id"] != "lb-1" || s.Annotations[alibaba+"force-override-listeners"] != "true" || s.Annotations[alibaba+"name"] != "" {
			t.Errorf("%s: %v", n, s.Annotations)
		}
	}
	// A hub cannot move to a port that another one has.
	w.Gateway.Spec.Endpoints[1].Port = 4500
	if c := condition(w.settle(t), "Exposed"); portsOf(w.service(t, "node-2", false))["UDP"] != 4501 || c.Reason != "PortInUse" {
		t.Errorf("%v, %+v", portsOf(w.service(t, "node-2", false)), c)
	}
	// The next hub at the port waits until the last one has left it.
	w.Gateway.Spec.Endpoints[1].Port = 4501
	w.settle(t)
	w.service(t, "node-1", false).DeletionTimestamp = &metav1.Time{Time: start}
	if c := condition(w.run(), "Exposed"); c.Reason != "Pending" {
		t.Errorf("%+v", c)
	}
}

// TestOwnBalancer: the balancer that the cloud made for one Service is never given
// to another, and a Service that has one is not moved to another.
func TestOwnBalancer(t *testing.T) {
	w := hubs("node-1", "node-2")
	second := w.Gateway.Status.ActiveEndpoints[1]
	w.Gateway.Status.ActiveEndpoints = w.Gateway.Status.ActiveEndpoints[:1]
	w.settle(t)
	s := w.service(t, "node-1", false)
	s.Labels["service.k8s.alibaba/loadbalancer-id"] = "lb-own"
	cloud(s, "203.0.113.1", "")
	w.data = map[string]string{"loadbalancer-id": "lb-own"} // and the note is lost
	w.Gateway.Status.ActiveEndpoints = append(w.Gateway.Status.ActiveEndpoints, second)
	w.settle(t)
	for _, n := range []string{"node-1", "node-2"} {
		if id := w.service(t, n, false).Annotations[alibaba+"id"]; id != "" {
			t.Errorf("%s is to use %s", n, id)
		}
	}
	w.data["loadbalancer-id"] = "lb-given"
	w.settle(t)
	if id := w.service(t, "node-1", false).Annotations[alibaba+"id"]; id != "" {
		t.Errorf("node-1 is moved to %s", id)
	}
	if id := w.service(t, "node-2", false).Annotations[alibaba+"id"]; id != "lb-given" {
		t.Errorf("node-2 has no balancer yet and gets %q", id)
	}
}

// ravens is a Service as yurt-manager leaves it.
func ravens(name string) corev1.Service {
	return corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "kube-system", UID: "u", CreationTimestamp: metav1.Time{Time: start.Add(-1e12)},
			Annotations: map[string]string{"svc.openyurt.io/discard": "true"},
			Labels: map[string]string{
				"raven.openyurt.io/gateway": "cloud", "raven.openyurt.io/gateway-type": "tunnel",
				"raven.openyurt.io/endpoints-name": "node-1",
			},
		},
		Spec: corev1.ServiceSpec{
			Type: "LoadBalancer", ExternalTrafficPolicy: "Local",
			Ports: []corev1.ServicePort{{Protocol: "UDP", Port: 4500, NodePort: 30001}},
		},
	}
}

func TestAdoption(t *testing.T) {
	w := hubs("node-1")
	w.Services = []corev1.Service{ravens("x-raven-tunnel-svc-cloud-0a1b2c3d")}
	cloud(&w.Services[0], "203.0.113.1", "")
	r := w.run()
	if !r.Hold || !r.Adopt[w.Services[0].Name] || len(r.Create) != 1 || len(r.Change) != 1 {
		t.Fatalf("%+v", r)
	}
	w.settle(t)
	s := w.service(t, "node-1", false)
	if p := portsOf(s); s.Name != "x-raven-tunnel-svc-cloud-0a1b2c3d" || len(p) != 1 || s.Spec.Ports[0].NodePort != 30001 ||
		s.Spec.Ports[0].Name != "tunnel" || s.Labels["app.kubernetes.io/managed-by"] != "corax-controller" {
		t.Errorf("%+v", s)
	}
	if p := portsOf(w.service(t, "node-1", true)); p["TCP"] != 10280 {
		t.Errorf("the fallback has %v", p)
	}
	w.Gateway.Spec.ExposeType = ""
	if w.settle(t); len(w.Services) != 0 {
		t.Errorf("left: %v", w.Services)
	}
}

func TestAdoptionWithoutAddress(t *testing.T) {
	w := hubs("node-1")
	w.Services = []corev1.Service{ravens("x-raven-tunnel-svc-cloud-0a1b2c3d")}
	w.Services[0].CreationTimestamp = metav1.Time{Time: start}
	w.settle(t)
	if p := portsOf(w.service(t, "node-1", false)); len(w.Services) != 1 || len(p) != 2 {
		t.Errorf("%v", p)
	}
}

// TestPersonsService: one that a person made with the labels is used and never
// changed.
func TestPersonsService(t *testing.T) {
	w := hubs("node-1")
	w.Services = []corev1.Service{ravens("mine")}
	cloud(&w.Services[0], "203.0.113.1", "")
	was := w.Services[0].DeepCopy()
	r := w.settle(t)
	if e := r.Endpoints[0]; e.PublicIP != "203.0.113.1" || e.PublicPort != 4500 {
		t.Errorf("%+v", e)
	}
	w.Gateway.Spec.ExposeType = ""
	r = w.settle(t)
	if diff := cmp.Diff([]corev1.Service{*was}, w.Services); diff != "" || r.Hold || len(w.Slices) != 0 {
		t.Error(diff, r.Hold, w.Slices)
	}
}

func TestDuplicates(t *testing.T) {
	w := hubs("node-1")
	w.settle(t)
	for i, name := range []string{"x-raven-tunnel-svc-cloud-00000002", "x-raven-tunnel-svc-cloud-00000003"} {
		s := w.Services[0].DeepCopy()
		s.Name = name
		s.CreationTimestamp = metav1.Time{Time: start.Add(1e9)}
		if i == 1 {
			cloud(s, "203.0.113.1", "")
		}
		w.Services = append(w.Services, *s)
	}
	w.settle(t)
	if len(w.Services) != 1 || w.Services[0].Name != "x-raven-tunnel-svc-cloud-00000003" || len(w.Slices) != 1 {
		t.Errorf("kept %v, %v", w.Services, w.Slices)
	}
}
