package control

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"time"

	"corax/control/api/v1beta1"
	"corax/dataplane/key"
)

// mesh is what the objects alone say, the same on every node.
type mesh struct {
	domains  []*domain          // by name
	ofNode   map[string]*domain // every node that some Gateway names
	ofKey    map[key.Public]*member
	claims   claims // all subnets in force
	problems []Problem

	enableTunnel, enableProxy bool
}

// domain is one Gateway, read.
type domain struct {
	name   string
	gw     *v1beta1.Gateway
	cost   time.Duration
	routed bool
	tunnel bool // tunnel mode is on and wanted here

	nodes     []*node // of status.nodes, by name
	nodeNamed map[string]*node
	members   []*member // listed endpoints, by node name
	memberOn  map[string]*member

	carriers     map[string]*member
	carrierNames []string // sorted
	lost         []claim  // subnets of this domain that another one holds

	elected []string // carriers by the object alone, sorted
	inForce *Claim   // nil: the object is
}

// node is one entry of status.nodes with a usable address.
type node struct {
	name    string
	index   int // in status.nodes
	addr    netip.Addr
	subnets []netip.Prefix // in force, sorted
}

// newMesh reads a snapshot.
func newMesh(s Snapshot, l Local) *mesh {
	m := &mesh{
		ofNode: map[string]*domain{}, ofKey: map[key.Public]*member{},
		enableTunnel: s.EnableTunnel, enableProxy: s.EnableProxy,
	}
	m.readDomains(s.Gateways)
	for _, d := range m.domains {
		m.readNodes(d)
	}
	for _, d := range m.domains {
		m.readMembers(d)
	}
	m.readKeys()
	m.useKeys(l)
	for _, d := range m.domains {
		m.elect(d)
		m.claimed(d, l.Claims)
		m.findCarriers(d)
		m.readReach(d)
	}
	for _, d := range m.domains {
		m.claim(d)
	}
	for _, d := range m.domains {
		m.dropCovered(d)
	}
	return m
}

func (m *mesh) readDomains(gws []v1beta1.Gateway) {
	for i := range gws {
		gw := &gws[i]
		if v1beta1.CheckName(gw.Metadata.Name) != nil {
			continue // reported by the source
		}
		cost, _ := gw.Cost()
		m.domains = append(m.domains, &domain{
			name: gw.Metadata.Name, gw: gw, cost: time.Duration(cost) * time.Millisecond, routed: gw.Routed(),
			nodeNamed: map[string]*node{}, memberOn: map[string]*member{}, carriers: map[string]*member{},
		})
	}
	slices.SortStableFunc(m.domains, func(a, b *domain) int { return cmp.Compare(a.name, b.name) })
	m.domains = slices.CompactFunc(m.domains, func(a, b *domain) bool { return a.name == b.name })
}

// readNodes takes the nodes of status.nodes. Of two with one name the first in
// the list stays, of two with one address the first by name.
func (m *mesh) readNodes(d *domain) {
	infos := d.gw.Status.Nodes
	order := make([]int, len(infos))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(i, j int) bool { return infos[order[i]].NodeName < infos[order[j]].NodeName })
	holder := map[netip.Addr]string{}
	last := ""
	for _, i := range order {
		name, field := infos[i].NodeName, fmt.Sprintf("status.nodes[%d]", i)
		if v1beta1.CheckName(name) != nil {
			continue
		}
		if name == last {
			m.report(d, field+".nodeName", "node %s is listed twice; this entry is left out", name)
			continue
		}
		last = name
		if other, taken := m.ofNode[name]; taken {
			m.report(d, field+".nodeName", "node %s belongs to gateway %s; this entry is left out", name, other.name)
			continue
		}
		m.ofNode[name] = d
		addr, err := v1beta1.ParseAddr(infos[i].PrivateIP)
		if err != nil {
			continue // reported by the source; the node is left out
		}
		if other, taken := holder[addr]; taken {
			m.report(d, field+".privateIP", "node %s has the address %s too; node %s is left out", other, addr, name)
			continue
		}
		holder[addr] = name
		n := &node{name: name, index: i, addr: addr}
		d.nodes = append(d.nodes, n)
		d.nodeNamed[name] = n
	}
}

// claim takes the subnets of a domain's nodes, unless an earlier domain or node
// holds them.
func (m *mesh) claim(d *domain) {
	if !d.tunnel {
		return
	}
	for _, n := range d.nodes {
		for _, c := range d.wanted(n) {
			held, ok := m.claims.add(c)
			switch {
			case ok:
				n.subnets = append(n.subnets, c.prefix)
			case held.node != n: // else a wider subnet of the node covers it
				d.lost = append(d.lost, c)
				m.report(d, c.field, "%s of node %s overlaps %s of gateway %s, node %s, and is left out",
					c.prefix, n.name, held.prefix, held.domain.name, held.node.name)
			}
		}
	}
}

// wanted returns what a node claims, sorted, so that the wider of two nested
// subnets comes first.
func (d *domain) wanted(n *node) []claim {
	var all []claim
	for i, s := range d.gw.Status.Nodes[n.index].Subnets {
		if p, err := v1beta1.ParseSubnet(s); err == nil { // else the source reports it
			all = append(all, claim{p, d, n, fmt.Sprintf("status.nodes[%d].subnets[%d]", n.index, i)})
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].prefix.Compare(all[j].prefix) < 0 })
	return all
}

func (m *mesh) report(d *domain, field, format string, args ...any) {
	m.problems = append(m.problems, Problem{
		Object: GatewayObject(d.name), Field: field, Message: fmt.Sprintf(format, args...),
	})
}
