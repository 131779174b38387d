package exposure_test

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/control/api/v1beta1"
	"corax/control/controller/exposure"
)

// FuzzFor drives a Gateway with three nodes through what people, the cloud and the
// election may do, and checks after each step that the results come to an end, and
// what always holds. A step is stopped halfway when its byte says so, as a crash
// would.
func FuzzFor(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}, "x")
	f.Add([]byte{0, 9, 20, 9, 2, 6, 33, 7, 1, 9}, `{"annotations":{"a":"b"},"ranges":["10.0.0.0/8"]}`)
	f.Add([]byte{128, 139, 130, 6, 7, 137, 12, 3, 20, 34, 48}, "{")
	f.Fuzz(func(t *testing.T, steps []byte, text string) {
		w := hubs("node-1", "node-2", "node-3")
		all := w.Gateway.Status.ActiveEndpoints
		theirs := ravens("mine")
		theirs.Labels[v1beta1.LabelEndpointsName] = "node-3"
		w.Services = append(w.Services, theirs)
		for _, b := range steps[:min(len(steps), 40)] {
			w.step(b&0x7f, text, all)
			if b&0x80 != 0 {
				w.apply(half(w, b))
			}
			r := w.settle(t)
			w.check(t, r, theirs)
		}
	})
}

// step is one event.
func (w *world) step(b byte, text string, all []v1beta1.Endpoint) {
	var s *corev1.Service
	if len(w.Services) > 0 {
		slices.SortFunc(w.Services, func(a, b corev1.Service) int { return slices.Compare([]string{a.Name}, []string{b.Name}) })
		s = &w.Services[int(b/14)%len(w.Services)]
		if s.Name == "mine" {
			s = nil
		}
	}
	set := func(key, value string) {
		if w.data == nil {
			w.data = map[string]string{}
		}
		w.data[key] = value
	}
	switch b % 14 {
	case 0:
		w.Gateway.Status.ActiveEndpoints = all[:int(b/14)%4]
	case 1:
		w.Gateway.Spec.ExposeType = []string{"", "PublicIP", "LoadBalancer", "LoadBalancer"}[int(b/14)%4]
	case 2:
		w.Gateway.Spec.Endpoints[int(b/14)%3].Port = 4500 + int(b/14)
	case 3:
		set("acl-entry", []string{"", "100.64.0.0/10", "x", text}[int(b/14)%4])
	case 4:
		set("loadbalancer-id", []string{"", "lb-1", text}[int(b/14)%3])
	case 5:
		set("acl-id", []string{"", "acl-1", text}[int(b/14)%3])
	case 6:
		w.Now = w.Now.Add(time.Duration(b) * time.Second)
	case 7:
		w.Gateway.Spec.Endpoints[int(b/14)%3].Config = map[string]string{"corax.io/tls-port": text}
	case 8:
		delete(w.nodes, "node-2")
	default:
		if s != nil {
			w.cloudOrPerson(s, b, text)
		}
	}
}

// cloudOrPerson is an event that concerns one Service.
func (w *world) cloudOrPerson(s *corev1.Service, b byte, text string) {
	switch b % 14 {
	case 9:
		cloud(s, "203.0.113.1", "")
	case 10:
		cloud(s, "", text)
	case 11:
		s.Annotations[v1beta1.AnnotationApplied] = text
	case 12:
		s.Spec.LoadBalancerSourceRanges = []string{"10.0.0.0/8"}
	case 13:
		w.Services = slices.DeleteFunc(w.Services, func(x corev1.Service) bool { return x.Name == s.Name })
	}
}

// half is a result of which some steps are missing.
func half(w *world, b byte) (r exposure.Result) {
	r = w.run()
	if b&1 != 0 {
		r.Create = nil
	}
	if b&2 != 0 {
		r.Change = nil
	}
	if b&4 != 0 {
		r.Delete, r.DeleteSlices = nil, nil
	}
	return r
}

func (w *world) check(t *testing.T, r exposure.Result, theirs corev1.Service) {
	t.Helper()
	exposed := w.Gateway.Spec.ExposeType == v1beta1.ExposeLoadBalancer
	own := map[string]int{}
	for _, s := range w.Services {
		if s.Name == "mine" {
			if len(s.Annotations) != len(theirs.Annotations) || len(s.Labels) != len(theirs.Labels) || len(s.Spec.Ports) != 1 {
				t.Fatalf("a person's Service was changed: %+v", s)
			}
			continue
		}
		node := s.Labels[v1beta1.LabelEndpointsName]
		own[node+s.Annotations[v1beta1.AnnotationProtocols]]++
		active := slices.ContainsFunc(w.Gateway.Status.ActiveEndpoints, func(e v1beta1.Endpoint) bool { return e.NodeName == node })
		if !exposed || !active || own[node+s.Annotations[v1beta1.AnnotationProtocols]] > 1 {
			t.Fatalf("a Service too many: %+v", s)
		}
		if s.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal || len(s.Name) > 63 || len(s.Spec.Ports) == 0 {
			t.Fatalf("%+v", s)
		}
	}
	if r.Hold != (len(own) > 0) {
		t.Fatalf("hold is %v with %d Services", r.Hold, len(own))
	}
	if own[""] = 0; !exposed && len(w.Slices) > 0 {
		t.Fatalf("slices are left: %v", w.Slices)
	}
	for _, c := range r.Conditions {
		if c.Reason == "" || c.Status != metav1.ConditionTrue && c.Message == "" || len(c.Message) > 1100 {
			t.Fatalf("%+v", c)
		}
	}
}
