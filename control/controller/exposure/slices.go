package exposure

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/control/api/v1beta1"
)

// slices compares the EndpointSlices that there should be with those there are.
func (w *work) slices(wanted map[string]bool) {
	want := map[string]*discoveryv1.EndpointSlice{}
	for _, s := range w.mine {
		node := s.Labels[v1beta1.LabelEndpointsName]
		if !wanted[node] || s.DeletionTimestamp != nil || !isOwn(s) && !w.Adopt[s.Name] || slices.Contains(w.Delete, s) {
			continue
		}
		n, ok := w.Node(node)
		if !ok || len(n.Addrs) == 0 {
			w.problem(reasonNode, "node %s is gone or has no InternalIP; its Service leads nowhere", node)
			continue
		}
		for _, e := range w.slicesOf(w.changed(s), n) {
			want[e.Name] = e
		}
	}
	have := map[string]bool{}
	for i := range w.Slices {
		e := &w.Slices[i]
		if e.Labels[discoveryv1.LabelManagedBy] != v1beta1.ManagedBy || e.Labels[v1beta1.LabelGateway] != w.Gateway.Name {
			continue
		}
		have[e.Name] = true
		target := want[e.Name]
		if target == nil || target.AddressType != e.AddressType {
			if e.DeletionTimestamp == nil {
				w.DeleteSlices = append(w.DeleteSlices, e)
			}
			continue
		}
		now := e.DeepCopy()
		now.Labels, now.OwnerReferences, now.Endpoints, now.Ports = target.Labels, target.OwnerReferences, target.Endpoints, target.Ports
		if !equality.Semantic.DeepEqual(e, now) {
			w.ChangeSlices = append(w.ChangeSlices, Change[discoveryv1.EndpointSlice]{e, now})
		}
	}
	for name, e := range want {
		if !have[name] {
			w.CreateSlices = append(w.CreateSlices, e)
		}
	}
	slices.SortFunc(w.CreateSlices, func(a, b *discoveryv1.EndpointSlice) int {
		return slices.Compare([]string{a.Name}, []string{b.Name})
	})
}

// changed returns s as it will be.
func (w *work) changed(s *corev1.Service) *corev1.Service {
	for _, c := range w.Change {
		if c.Was == s {
			return c.Is
		}
	}
	return s
}

// slicesOf returns one slice for each family of which the node has an address.
// They go with their Service.
func (w *work) slicesOf(s *corev1.Service, n Node) []*discoveryv1.EndpointSlice {
	yes := true
	var list []*discoveryv1.EndpointSlice
	for _, f := range []struct {
		kind   discoveryv1.AddressType
		suffix string
		is     func(netip.Addr) bool
	}{
		{discoveryv1.AddressTypeIPv4, "-ipv4", netip.Addr.Is4},
		{discoveryv1.AddressTypeIPv6, "-ipv6", netip.Addr.Is6},
	} {
		i := slices.IndexFunc(n.Addrs, f.is)
		if i < 0 {
			continue
		}
		e := &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{
				Name: s.Name + f.suffix, Namespace: s.Namespace,
				Labels: map[string]string{
					discoveryv1.LabelServiceName: s.Name, discoveryv1.LabelManagedBy: v1beta1.ManagedBy,
					v1beta1.LabelGateway: w.Gateway.Name,
				},
				OwnerReferences: []metav1.OwnerReference{{
					APIVersion: "v1", Kind: "Service", Name: s.Name, UID: s.UID,
				}},
			},
			AddressType: f.kind,
			Endpoints: []discoveryv1.Endpoint{{
				Addresses: []string{n.Addrs[i].String()}, NodeName: &n.Name,
				Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes},
			}},
		}
		for _, protocol := range []corev1.Protocol{corev1.ProtocolUDP, corev1.ProtocolTCP} {
			if i := ourPort(s.Spec.Ports, protocol); i >= 0 {
				name, number := s.Spec.Ports[i].Name, target(protocol)
				e.Ports = append(e.Ports, discoveryv1.EndpointPort{Name: &name, Protocol: &protocol, Port: &number})
			}
		}
		list = append(list, e)
	}
	return list
}
