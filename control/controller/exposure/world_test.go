package exposure_test

import (
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/control/api/v1beta1"
	"corax/control/controller/exposure"
	"corax/control/kube/gateway"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// world is an input that test cases change, and that takes results like a cluster.
type world struct {
	exposure.Input
	data  map[string]string // raven-cfg; nil: there is none
	nodes map[string]exposure.Node
}

// hubs makes a Gateway "cloud" with a tunnel entry for each node, all active.
func hubs(nodes ...string) *world {
	w := &world{nodes: map[string]exposure.Node{}}
	w.Now, w.Namespace = start, "kube-system"
	w.Gateway = &gateway.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "cloud", Finalizers: []string{v1beta1.FinalizerExposure}}}
	w.Gateway.Spec.ExposeType = v1beta1.ExposeLoadBalancer
	for i, n := range nodes {
		w.nodes[n] = exposure.Node{Name: n, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})}}
		e := v1beta1.Endpoint{NodeName: n, Type: v1beta1.TypeTunnel, Port: 4500}
		w.Gateway.Spec.Endpoints = append(w.Gateway.Spec.Endpoints, e)
		w.Gateway.Status.ActiveEndpoints = append(w.Gateway.Status.ActiveEndpoints, e)
	}
	return w
}

func (w *world) run() exposure.Result {
	in := w.Input
	if w.data != nil {
		in.Settings = exposure.ParseSettings(&corev1.ConfigMap{Data: w.data})
	} else {
		in.Settings = exposure.ParseSettings(nil)
	}
	in.Node = func(name string) (exposure.Node, bool) { n, ok := w.nodes[name]; return n, ok }
	return exposure.For(in)
}

// apply makes the world what the result says, as the API server would.
func (w *world) apply(r exposure.Result) {
	w.Gateway.Spec.Endpoints = r.Endpoints
	w.Gateway.Annotations = map[string]string{v1beta1.AnnotationApplied: r.Note}
	byName := map[string]corev1.Service{}
	for _, s := range w.Services {
		byName[s.Name] = s
	}
	for _, s := range r.Create {
		c := *s.DeepCopy()
		c.CreationTimestamp = metav1.Time{Time: w.Now}
		c.UID = "uid-of-a-service"
		byName[c.Name] = c
	}
	for _, c := range r.Change {
		byName[c.Is.Name] = *c.Is
	}
	for _, s := range r.Delete {
		delete(byName, s.Name)
	}
	w.Services = nil
	for _, s := range byName {
		w.Services = append(w.Services, s)
	}
	slices := map[string]discoveryv1.EndpointSlice{}
	for _, s := range w.Slices {
		slices[s.Name] = s
	}
	for _, s := range r.CreateSlices {
		slices[s.Name] = *s
	}
	for _, c := range r.ChangeSlices {
		slices[c.Is.Name] = *c.Is
	}
	for _, s := range r.DeleteSlices {
		delete(slices, s.Name)
	}
	w.Slices = nil
	for _, s := range slices {
		w.Slices = append(w.Slices, s)
	}
}

// settle applies results until nothing changes any more.
func (w *world) settle(t *testing.T) exposure.Result {
	t.Helper()
	for range 10 {
		r := w.run()
		if quiet(w, r) {
			return r
		}
		w.apply(r)
	}
	t.Fatal("the results never end")
	return exposure.Result{}
}

// quiet reports whether a result has nothing to write.
func quiet(w *world, r exposure.Result) bool {
	n := len(r.Create) + len(r.Change) + len(r.Delete) + len(r.CreateSlices) + len(r.ChangeSlices) + len(r.DeleteSlices)
	if r.Note != w.Gateway.Annotations[v1beta1.AnnotationApplied] {
		n++
	}
	for i, e := range r.Endpoints {
		was := w.Gateway.Spec.Endpoints[i]
		if e.PublicIP != was.PublicIP || e.PublicPort != was.PublicPort || len(e.Config) != len(was.Config) {
			n++
		}
	}
	return n == 0
}

// service returns the one of a node; TCP alone or not.
func (w *world) service(t *testing.T, node string, second bool) *corev1.Service {
	t.Helper()
	for i := range w.Services {
		s := &w.Services[i]
		if s.Labels[v1beta1.LabelEndpointsName] == node && (s.Annotations[v1beta1.AnnotationProtocols] == "TCP") == second {
			return s
		}
	}
	t.Fatalf("node %s has no such Service", node)
	return nil
}

// cloud gives a Service an address.
func cloud(s *corev1.Service, ip, host string) {
	s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: ip, Hostname: host}}
}

// condition returns one of the result.
func condition(r exposure.Result, kind string) metav1.Condition {
	for _, c := range r.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return metav1.Condition{}
}

func portsOf(s *corev1.Service) map[corev1.Protocol]int32 {
	m := map[corev1.Protocol]int32{}
	for _, p := range s.Spec.Ports {
		m[p.Protocol] = p.Port
	}
	return m
}
