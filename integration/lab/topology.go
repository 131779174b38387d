//go:build linux

package lab

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
)

// Options vary the standard topology. The zero value is the one in the package
// comment.
type Options struct {
	Edges  int // domains behind a NAT; 0 means 2
	Nodes  int // per domain, the gateway node included; 0 means 2
	LANMTU int // of every domain's LAN, in bytes; 0 means 1500
	WANMTU int // 0 means 1500
	// EdgeLANMTU is the MTU of the edges' LANs when it differs from LANMTU.
	EdgeLANMTU int
	// NAT of the edges; the zero value means MapKeepPort.
	NAT NAT
	// V6Underlay gives nodes an IPv6 node IP and the hub an IPv6 public one.
	// Without it LANs and WAN have IPv6 too, but agents are not told.
	V6Underlay bool
	DropICMP   bool // on all routers
	NoCapture  bool // records nothing
	// Node may change each node's configuration before the node is made.
	Node func(*NodeConfig)
}

// Topology is a cluster of several domains: Domains[0] is "cloud", with public
// addresses and the hub; "edge-a", "edge-b" ... are behind NATs and have the same
// LAN range and node IPs.
type Topology struct {
	Lab      *Lab
	WAN      *LAN
	Internet *Host // routes between the WAN and the cloud's LAN
	Domains  []*Domain
	Gateways string // directory with the Gateway objects, one file each
	// Proxy, set before Prepare, makes the gateway nodes proxy endpoints, too.
	Proxy bool
	// Rootless, set before Prepare, says which nodes' agents have no privilege and
	// no TUN: see Agent.Deprive and Agent.Detour. Nil: none, or those of
	// DatapathEnv.
	Rootless func(*Node) bool

	opt Options
}

// Domain is one network domain.
type Domain struct {
	Name   string
	LAN    *LAN
	Router *Host // links "wan" and "lan"; nil: the node is on the WAN
	// Routers are all routers up to the WAN, Router first; by Internet.
	Routers []*Host
	Hub     bool // the Gateway is exposed with the gateway node's IP
	// Annotations are those of the Gateway.
	Annotations map[string]string
	Nodes       []*Node
	Agents      []*Agent // one per node, in the same order; by Prepare
}

// Gateway returns the gateway node.
func (d *Domain) Gateway() *Node { return d.Nodes[0] }

// ClusterCIDRs are the prefixes of all pods of the standard topology.
func ClusterCIDRs() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/48")}
}

// Standard builds the standard topology, with one pod on each node, and without
// agents.
func Standard(l *Lab, opt Options) *Topology {
	if opt.Edges == 0 {
		opt.Edges = 2
	}
	if opt.Nodes == 0 {
		opt.Nodes = 2
	}
	if opt.NAT == (NAT{}) {
		opt.NAT = NAT{Mapping: MapKeepPort}
	}
	t := &Topology{Lab: l, opt: opt, Gateways: filepath.Join(l.dir, "gateways")}
	t.WAN = l.LAN("wan", opt.WANMTU)
	t.addCloud()
	for i := range opt.Edges {
		t.addEdge(i)
	}
	for _, d := range t.Domains {
		RoutePods(d.Nodes...)
		for _, n := range d.Nodes {
			n.Pod("pod")
		}
	}
	if !opt.NoCapture {
		t.record()
	}
	return t
}

func (t *Topology) addCloud() {
	d := &Domain{Name: "cloud", Hub: true, LAN: t.Lab.LAN("cloud", t.opt.LANMTU)}
	t.Internet = t.Lab.Router(RouterConfig{
		Name: "internet",
		WAN:  t.WAN, WANAddrs: prefixes("203.0.113.1/25", "2001:db8:0:1::1/64"),
		LAN: d.LAN, LANAddrs: prefixes("203.0.113.129/25", "2001:db8:0:c::1/64"),
		DropICMP: t.opt.DropICMP,
	})
	d.Router = t.Internet
	for i := range t.opt.Nodes {
		t.addNode(d, i, fmt.Sprintf("203.0.113.%d/25", 130+i), fmt.Sprintf("2001:db8:0:c::%d/64", 10+i))
	}
	t.Domains = append(t.Domains, d)
}

func (t *Topology) addEdge(i int) {
	d := &Domain{Name: "edge-" + string(rune('a'+i))}
	d.LAN = t.Lab.LAN(d.Name, cmp.Or(t.opt.EdgeLANMTU, t.opt.LANMTU))
	host := 10 * (i + 1)
	d.Router = t.Lab.Router(RouterConfig{
		Name: d.Name + "-router",
		WAN:  t.WAN, WANAddrs: prefixes(fmt.Sprintf("203.0.113.%d/25", host), fmt.Sprintf("2001:db8:0:1::%d/64", host)),
		LAN: d.LAN, LANAddrs: prefixes("192.168.1.1/24", "fd00:192:168:1::1/64"),
		Gateways: []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8:0:1::1")},
		NAT:      t.opt.NAT,
		DropICMP: t.opt.DropICMP,
	})
	for n := range t.opt.Nodes {
		t.addNode(d, n, fmt.Sprintf("192.168.1.%d/24", 10+n), fmt.Sprintf("fd00:192:168:1::%d/64", 10+n))
	}
	t.Domains = append(t.Domains, d)
}

// addNode adds node i of a domain; its addresses come with the LAN's prefix
// length, and the LAN's router has the first address of the prefix.
func (t *Topology) addNode(d *Domain, i int, v4, v6 string) {
	cfg := NodeConfig{
		Name:         fmt.Sprintf("%s-%d", d.Name, i),
		Subnets:      prefixes(fmt.Sprintf("10.244.%d.0/24", 10*len(t.Domains)+i), fmt.Sprintf("fd00:10:244:%d::/64", 10*len(t.Domains)+i)),
		ClusterCIDRs: ClusterCIDRs(),
		Masquerade:   MasqLeavingCluster,
	}
	if i == 0 {
		cfg.Name = d.Name + "-gw"
	}
	if t.opt.Node != nil {
		t.opt.Node(&cfg)
	}
	n := t.Lab.Node(cfg)
	addrs := prefixes(v4, v6)
	if t.opt.V6Underlay {
		addrs[0], addrs[1] = addrs[1], addrs[0]
	}
	n.AttachNode(d.LAN, addrs...)
	for _, a := range addrs {
		n.Route(Route{Dst: Default(a.Addr()), Via: a.Masked().Addr().Next()})
	}
	d.Nodes = append(d.Nodes, n)
}

// record captures on every router's WAN link and in the cloud's LAN.
func (t *Topology) record() {
	if t.Lab.Err() != nil {
		return
	}
	for _, d := range t.Domains {
		if _, err := d.Router.Capture("wan", nil); err != nil {
			t.Lab.failed(err)
		}
		if _, err := d.Router.Capture("lan", nil); err != nil {
			t.Lab.failed(err)
		}
	}
}

// Nodes returns every node, domain by domain.
func (t *Topology) Nodes() []*Node {
	var nodes []*Node
	for _, d := range t.Domains {
		nodes = append(nodes, d.Nodes...)
	}
	return nodes
}

// Agents returns every agent, in the order of Nodes.
func (t *Topology) Agents() []*Agent {
	var agents []*Agent
	for _, d := range t.Domains {
		agents = append(agents, d.Agents...)
	}
	return agents
}

// Node returns a node by name; nil when there is none.
func (t *Topology) Node(name string) *Node {
	for _, n := range t.Nodes() {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// Agent returns the agent of a node by name; nil when there is none.
func (t *Topology) Agent(name string) *Agent {
	for _, a := range t.Agents() {
		if a.Host.Name == name {
			return a
		}
	}
	return nil
}

// AddService adds a Service to every node.
func (t *Topology) AddService(s Service) {
	for _, n := range t.Nodes() {
		n.AddService(s)
	}
}

// Object returns the Gateway object of a domain as the topology lays it out:
// node 0 is the only endpoint. keys are public keys by node name.
func (t *Topology) Object(d *Domain, keys map[string]string) Gateway {
	gw := d.Gateway()
	e := Endpoint{Node: gw.Name, UnderNAT: true, PublicKey: keys[gw.Name]}
	g := Gateway{Name: d.Name, Annotations: d.Annotations, Proxy: t.Proxy}
	if d.Hub {
		e.UnderNAT, e.PublicIP = false, gw.IP
		g.ExposeType = "PublicIP"
	}
	g.Endpoints = []Endpoint{e}
	for _, n := range d.Nodes {
		g.Nodes = append(g.Nodes, GatewayNode{Node: n.Name, IP: n.IP, Subnets: n.Subnets})
	}
	return g
}

// Prepare makes an agent for each node, its key pair, and the Gateway objects in
// t.Gateways. args are further arguments for every agent. It returns the public
// keys by node name.
func (t *Topology) Prepare(ctx context.Context, args ...string) (map[string]string, error) {
	if err := t.Lab.Err(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(t.Gateways, 0o755); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	keys := make(map[string]string)
	for _, d := range t.Domains {
		for _, n := range d.Nodes {
			a, err := n.NewAgent(AgentConfig{NodeIP: n.IP, Gateways: t.Gateways, Args: args})
			if err != nil {
				return nil, err
			}
			if keys[n.Name], err = a.Key(ctx); err != nil {
				return nil, err
			}
			d.Agents = append(d.Agents, a)
		}
		if err := t.deprive(d); err != nil {
			return nil, err
		}
	}
	for _, d := range t.Domains {
		if err := t.Object(d, keys).Write(t.Gateways); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// deprive makes nodes of a domain rootless.
func (t *Topology) deprive(d *Domain) error {
	rootless := t.Rootless
	if rootless == nil && os.Getenv(DatapathEnv) == "netstack" {
		rootless = func(n *Node) bool { return !d.Hub && n == d.Gateway() }
	}
	var local []netip.Prefix
	for _, n := range d.Nodes {
		local = append(local, n.Subnets...)
	}
	for i, n := range d.Nodes {
		if rootless == nil || !rootless(n) {
			continue
		}
		n.AllowPing()
		d.Agents[i].Detour(local...)
		if err := d.Agents[i].Deprive(); err != nil {
			return err
		}
	}
	return nil
}

// Start prepares, starts all agents at once and waits until each is ready.
func (t *Topology) Start(ctx context.Context, args ...string) error {
	if _, err := t.Prepare(ctx, args...); err != nil {
		return err
	}
	agents := t.Agents()
	for _, a := range agents {
		if err := a.Start(); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, a := range agents {
		group.Go(func() error { return a.WaitReady(ctx) })
	}
	return group.Wait()
}

// prefixes parses constants.
func prefixes(s ...string) []netip.Prefix {
	p := make([]netip.Prefix, len(s))
	for i := range s {
		p[i] = netip.MustParsePrefix(s[i])
	}
	return p
}
