package exposure

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/validate/content"

	"corax/control/api/v1beta1"
	"corax/control/kube/gateway"
)

// hub is a node through which the Gateway is reached.
type hub struct {
	node string
	// udp and tcp are the ports at which it is exposed.
	udp, tcp int32
}

// activeHubs returns the nodes with an active endpoint in a mode that is on, in
// the order of status.
func activeHubs(g *gateway.Gateway, s Settings) []hub {
	var hubs []hub
	for i := range g.Status.ActiveEndpoints {
		e := &g.Status.ActiveEndpoints[i]
		if !modeOn(g, s, e.Type) || v1beta1.CheckName(e.NodeName) != nil ||
			isHub(hubs, e.NodeName) {
			continue
		}
		h := hub{node: e.NodeName, udp: v1beta1.PortTunnel, tcp: v1beta1.PortTLSFallback}
		h.readPorts(entryThatCounts(g, e))
		hubs = append(hubs, h)
	}
	return hubs
}

func isHub(hubs []hub, node string) bool {
	return slices.ContainsFunc(hubs, func(h hub) bool { return h.node == node })
}

// modeOn reports whether endpoints of a type carry traffic.
func modeOn(g *gateway.Gateway, s Settings, kind string) bool {
	switch c, p := g.Spec.TunnelConfig, g.Spec.ProxyConfig; kind {
	case v1beta1.TypeTunnel:
		return s.Tunnel && (c == nil || c.Replicas != 0)
	case v1beta1.TypeProxy:
		return s.Proxy && (p == nil || p.Replicas != 0)
	}
	return false
}

// entryThatCounts returns the tunnel entry of the node in spec, else its proxy
// entry, else the copy in status.
func entryThatCounts(g *gateway.Gateway, active *v1beta1.Endpoint) *v1beta1.Endpoint {
	best := active
	for i := range g.Spec.Endpoints {
		e := &g.Spec.Endpoints[i]
		if e.NodeName != active.NodeName {
			continue
		}
		if e.Type == v1beta1.TypeTunnel {
			return e
		}
		if e.Type == v1beta1.TypeProxy && best == active {
			best = e
		}
	}
	return best
}

// readPorts reads the ports that the entry asks for. The port of a proxy entry is
// of Raven's own protocol and says nothing. A hub with a port of its own has the
// fallback at the same number, so that two behind one balancer do not collide.
func (h *hub) readPorts(e *v1beta1.Endpoint) {
	if e.Type == v1beta1.TypeTunnel && e.Port >= 1 && e.Port <= 65535 {
		h.udp = int32(e.Port)
	}
	if h.udp != v1beta1.PortTunnel {
		h.tcp = h.udp
	}
	if p, err := v1beta1.ParsePort(e.Config[v1beta1.ConfigTLSPort]); err == nil {
		h.tcp = int32(p)
	}
}

// checkLabels says why a Gateway cannot have Services.
func checkLabels(name string) error {
	if problems := content.IsLabelValue(name); len(problems) > 0 {
		return fmt.Errorf("the name of the Gateway is no label value: %s", problems[0])
	}
	return nil
}
