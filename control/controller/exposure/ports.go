package exposure

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"corax/control/api/v1beta1"
)

// Names of our ports.
const (
	portNameUDP = "tunnel"
	portNameTCP = "tls"
)

// target returns where the agents listen.
func target(protocol corev1.Protocol) int32 {
	if protocol == corev1.ProtocolUDP {
		return v1beta1.PortTunnel
	}
	return v1beta1.PortTLSFallback
}

// ourPort returns the index of our port for a protocol, or -1. Raven's controller
// gives its UDP port no name.
func ourPort(list []corev1.ServicePort, protocol corev1.Protocol) int {
	names := map[corev1.Protocol]string{corev1.ProtocolUDP: portNameUDP, corev1.ProtocolTCP: portNameTCP}
	return slices.IndexFunc(list, func(p corev1.ServicePort) bool {
		return p.Protocol == protocol && (p.Name == "" || p.Name == names[protocol])
	})
}

// ports returns the list with our ports as they should be, at the front, and
// those of others as they are. Node ports that the cluster gave are kept.
func ports(have []corev1.ServicePort, protocols corev1.Protocol, h hub) []corev1.ServicePort {
	rest := slices.Clone(have)
	var list []corev1.ServicePort
	for _, p := range []corev1.ServicePort{
		{Name: portNameUDP, Protocol: corev1.ProtocolUDP, Port: h.udp},
		{Name: portNameTCP, Protocol: corev1.ProtocolTCP, Port: h.tcp},
	} {
		p.TargetPort = intstr.FromInt32(target(p.Protocol))
		if i := ourPort(rest, p.Protocol); i >= 0 {
			p.NodePort = rest[i].NodePort
			p.AppProtocol = rest[i].AppProtocol
			rest = slices.Delete(rest, i, i+1)
		}
		if protocols == "" || protocols == p.Protocol {
			list = append(list, p)
		}
	}
	return append(list, rest...)
}
