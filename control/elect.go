package control

import (
	"cmp"
	"fmt"
	"slices"

	"corax/control/api/v1beta1"
	"corax/dataplane/key"
)

// member is a node that a Gateway lists as endpoint of a layer that is on: a
// gateway node when it is active, else a standby.
type member struct {
	domain *domain
	node   string
	// entry holds the values that count: of the tunnel entry when the node has
	// one, else of the proxy entry.
	entry *v1beta1.Endpoint
	field string // path of entry
	// key is zero when the entry has none, or none that is usable.
	key key.Public
	// other is the key that the node does not use at present, of one that changes
	// its key; zero: there is one key.
	other  key.Public
	active map[string]bool // by endpoint type
	reach  reach
}

// gateway reports whether the member is active in any layer.
func (e *member) gateway() bool { return e.active[v1beta1.TypeTunnel] || e.active[v1beta1.TypeProxy] }

// listed is an endpoint entry and its path.
type listed struct {
	entry *v1beta1.Endpoint
	field string
}

// entries returns the endpoints of one type: those of spec, in order, then
// those that only status knows. The first entry of a node counts.
func (d *domain) entries(kind string) []listed {
	var all []listed
	seen := map[string]bool{}
	take := func(eps []v1beta1.Endpoint, path string) {
		for i := range eps {
			e := &eps[i]
			if e.Type == kind && !seen[e.NodeName] && v1beta1.CheckName(e.NodeName) == nil {
				seen[e.NodeName] = true
				all = append(all, listed{e, fmt.Sprintf("%s[%d]", path, i)})
			}
		}
	}
	take(d.gw.Spec.Endpoints, "spec.endpoints")
	take(d.gw.Status.ActiveEndpoints, "status.activeEndpoints")
	return all
}

// readMembers collects the nodes that are listed in a layer that is on. A node
// can be in one domain only.
func (m *mesh) readMembers(d *domain) {
	tunnels, proxies := d.entries(v1beta1.TypeTunnel), d.entries(v1beta1.TypeProxy)
	d.tunnel = m.enableTunnel && d.replicas(v1beta1.TypeTunnel) > 0 && len(tunnels) > 0
	proxy := m.enableProxy && d.replicas(v1beta1.TypeProxy) > 0

	for _, l := range tunnels {
		if d.tunnel {
			m.addMember(d, l)
		}
	}
	for _, l := range proxies {
		if !proxy {
			break
		}
		i := slices.IndexFunc(tunnels, func(t listed) bool { return t.entry.NodeName == l.entry.NodeName })
		if i >= 0 {
			l = tunnels[i]
		}
		m.addMember(d, l)
	}
	slices.SortFunc(d.members, func(a, b *member) int { return cmp.Compare(a.node, b.node) })
}

func (m *mesh) addMember(d *domain, l listed) {
	name := l.entry.NodeName
	if d.memberOn[name] != nil {
		return
	}
	if other, taken := m.ofNode[name]; taken && other != d {
		m.report(d, l.field+".nodeName", "node %s belongs to gateway %s; this entry is left out", name, other.name)
		return
	}
	m.ofNode[name] = d
	e := &member{domain: d, node: name, entry: l.entry, field: l.field, active: map[string]bool{}}
	d.members = append(d.members, e)
	d.memberOn[name] = e
}

// replicas returns how many endpoints of a type shall be active: 1 when the
// Gateway does not say, or says something impossible.
func (d *domain) replicas(kind string) int {
	n := -1
	switch c, p := d.gw.Spec.TunnelConfig, d.gw.Spec.ProxyConfig; {
	case kind == v1beta1.TypeTunnel && c != nil:
		n = c.Replicas
	case kind == v1beta1.TypeProxy && p != nil:
		n = p.Replicas
	}
	if n < 0 || n > v1beta1.MaxReplicas {
		return 1
	}
	return n
}

// elect marks the active members of both layers.
func (m *mesh) elect(d *domain) {
	for _, kind := range []string{v1beta1.TypeTunnel, v1beta1.TypeProxy} {
		on := m.enableProxy && d.replicas(kind) > 0
		if kind == v1beta1.TypeTunnel {
			on = d.tunnel
		}
		if !on {
			continue
		}
		if len(d.gw.Status.ActiveEndpoints) > 0 {
			m.follow(d, kind)
		} else {
			m.vote(d, kind)
		}
	}
}

// follow takes the active endpoints of status.
func (m *mesh) follow(d *domain, kind string) {
	for i := range d.gw.Status.ActiveEndpoints {
		a := &d.gw.Status.ActiveEndpoints[i]
		e := d.memberOn[a.NodeName]
		if a.Type != kind || e == nil {
			continue
		}
		if e.key.IsZero() {
			m.reportKeyless(e)
			continue
		}
		e.active[kind] = true
	}
}

// vote elects in the order of spec.endpoints. Members without a node of
// status.nodes can carry no subnet, so they come last.
func (m *mesh) vote(d *domain, kind string) {
	seats := d.replicas(kind)
	var late []*member
	for _, l := range d.entries(kind) {
		e := d.memberOn[l.entry.NodeName]
		switch {
		case e == nil || seats == 0:
		case e.key.IsZero():
			m.reportKeyless(e)
		case d.nodeNamed[e.node] == nil:
			late = append(late, e)
		default:
			e.active[kind] = true
			seats--
		}
	}
	for _, e := range late[:min(seats, len(late))] {
		e.active[kind] = true
	}
}

func (m *mesh) reportKeyless(e *member) {
	m.report(e.domain, e.keyField(), "node %s should be active but has no usable public key; it counts as absent", e.node)
}

// findCarriers picks the active tunnel endpoints that can carry subnets.
func (m *mesh) findCarriers(d *domain) {
	for _, e := range d.members {
		if !e.active[v1beta1.TypeTunnel] {
			continue
		}
		if d.nodeNamed[e.node] == nil {
			m.report(d, e.field+".nodeName", "node %s is active but has no usable entry in status.nodes; it carries no subnets", e.node)
			continue
		}
		d.carriers[e.node] = e
		d.carrierNames = append(d.carrierNames, e.node)
	}
	if d.tunnel && !d.routed && len(d.carriers) == 0 {
		m.report(d, "", "no active tunnel endpoint can carry its subnets; they are unreachable from other domains")
	}
}
