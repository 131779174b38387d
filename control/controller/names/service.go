package names

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"corax/control/api/v1beta1"
)

// Names of the objects.
const (
	ServiceName   = "x-raven-proxy-internal-svc"
	ConfigMapName = "edge-tunnel-nodes"
	// ConnectName is the Service in front of HTTP CONNECT. It is made by whoever serves
	// that, such as the chart; it gets the fronts as endpoints, and nothing else is done
	// to it. A selector would not do: only few of the cloud's agents are fronts.
	ConnectName = "x-raven-proxy-connect"
	// HostsKey is the key of the hosts file in the ConfigMap.
	HostsKey = "tunnel-nodes"
)

// Front is a node with an active proxy endpoint of an exposed Gateway.
type Front struct {
	Node  string
	Addrs []netip.Addr
}

// Service returns the Service of the fronts as it should be. have is the one that
// there is, nil for none; it is not changed, and what others added to it stays.
func Service(namespace string, have *corev1.Service, m PortMap) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: ServiceName, Namespace: namespace},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP},
	}
	if have != nil {
		s = have.DeepCopy()
	}
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	s.Labels["app"], s.Labels[v1beta1.LabelManagedBy] = "raven", v1beta1.ManagedBy
	s.Spec.Ports = servicePorts(s.Spec.Ports, m)
	return s
}

// Usable reports whether s, which somebody may have made, can be the Service of
// the fronts.
func Usable(s *corev1.Service) bool {
	return len(s.Spec.Selector) == 0 && (s.Spec.Type == corev1.ServiceTypeClusterIP || s.Spec.Type == "")
}

// ClusterIP returns the address of the Service; zero while it has none.
func ClusterIP(s *corev1.Service) netip.Addr {
	a, err := netip.ParseAddr(s.Spec.ClusterIP)
	if err != nil {
		return netip.Addr{}
	}
	return a
}

// isPortName reports whether we, or Raven's controller, give a port that name.
func isPortName(name string) bool {
	scheme, port, _ := strings.Cut(name, "-")
	_, err := v1beta1.ParsePort(port)
	return name == "" || err == nil && (scheme == "http" || scheme == "https")
}

// servicePorts returns our ports in order, then those of others.
func servicePorts(have []corev1.ServicePort, m PortMap) []corev1.ServicePort {
	var list []corev1.ServicePort
	add := func(scheme string, port, front uint16) {
		p := corev1.ServicePort{
			Name: portName(scheme, port), Protocol: corev1.ProtocolTCP,
			Port: int32(port), TargetPort: intstr.FromInt32(int32(front)),
		}
		if i := slices.IndexFunc(have, func(h corev1.ServicePort) bool { return h.Name == p.Name }); i >= 0 {
			p.NodePort, p.AppProtocol = have[i].NodePort, have[i].AppProtocol
		}
		list = append(list, p)
	}
	for _, port := range slices.Sorted(maps.Keys(m.TLS)) {
		add("https", port, m.TLS[port])
	}
	for _, port := range m.HTTP {
		add("http", port, FrontHTTP)
	}
	for _, p := range have {
		taken := slices.ContainsFunc(list, func(l corev1.ServicePort) bool { return l.Port == p.Port && l.Protocol == p.Protocol })
		if !isPortName(p.Name) && !taken {
			list = append(list, p)
		}
	}
	return list
}

// Slices returns the EndpointSlices of the Service: one for each family in which a
// front has an address. They go with the Service.
func Slices(s *corev1.Service, fronts []Front, m PortMap) []*discoveryv1.EndpointSlice {
	return slicesOf(s, fronts, servicePorts(nil, m))
}

// ConnectSlices returns those of the Service in front of HTTP CONNECT, likewise.
func ConnectSlices(s *corev1.Service, fronts []Front) []*discoveryv1.EndpointSlice {
	return slicesOf(s, fronts, s.Spec.Ports)
}

func slicesOf(s *corev1.Service, fronts []Front, list []corev1.ServicePort) []*discoveryv1.EndpointSlice {
	yes := true
	var ports []discoveryv1.EndpointPort
	for _, p := range list {
		number := p.TargetPort.IntVal
		if number == 0 { // not said, or a name, which no endpoint has
			number = p.Port
		}
		ports = append(ports, discoveryv1.EndpointPort{Name: &p.Name, Protocol: &p.Protocol, Port: &number})
	}
	sorted := slices.SortedFunc(slices.Values(fronts), func(a, b Front) int { return strings.Compare(a.Node, b.Node) })
	var out []*discoveryv1.EndpointSlice
	for _, f := range []struct {
		kind   discoveryv1.AddressType
		suffix string
		is     func(netip.Addr) bool
	}{
		{discoveryv1.AddressTypeIPv4, "-ipv4", netip.Addr.Is4},
		{discoveryv1.AddressTypeIPv6, "-ipv6", netip.Addr.Is6},
	} {
		var ends []discoveryv1.Endpoint
		for _, n := range sorted {
			if i := slices.IndexFunc(n.Addrs, f.is); i >= 0 {
				ends = append(ends, discoveryv1.Endpoint{
					Addresses: []string{n.Addrs[i].String()}, NodeName: &n.Node,
					Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes},
				})
			}
		}
		if len(ends) == 0 {
			continue
		}
		out = append(out, &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{
				Name: s.Name + f.suffix, Namespace: s.Namespace,
				Labels:          map[string]string{discoveryv1.LabelServiceName: s.Name, discoveryv1.LabelManagedBy: v1beta1.ManagedBy},
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: s.Name, UID: s.UID}},
			},
			AddressType: f.kind, Endpoints: ends, Ports: ports,
		})
	}
	return out
}

// ServingNames returns the DNS names under which the Service is asked for over TLS,
// in a cluster with that DNS domain.
func ServingNames(namespace, domain string) []string {
	of := ServiceName + "." + namespace
	return []string{ServiceName, of, of + ".svc", of + ".svc." + domain}
}
