//go:build linux

package lab

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/google/nftables"
)

// CNIBridge is the link of a node that its pods hang on.
const CNIBridge = "cni0"

// Masquerade is when a node's CNI plugin hides its pods behind the node.
type Masquerade uint8

const (
	MasqNone Masquerade = iota
	// MasqLeavingCluster hides pods from addresses outside the cluster CIDRs.
	MasqLeavingCluster
	// MasqLeavingNode hides pods from everything but the node's own pods, as
	// the bridge plugin's ipMasq does.
	MasqLeavingNode
)

// NodeConfig configures a Kubernetes node without Kubernetes.
type NodeConfig struct {
	Name         string
	Subnets      []netip.Prefix // of its pods, at most one per family
	ClusterCIDRs []netip.Prefix // of all pods of the cluster
	Masquerade   Masquerade
	// ForwardDrop gives FORWARD the policy drop, with accept rules for what a
	// CNI plugin and kube-proxy know: established, marked, and between the pods
	// and the LAN ("eth0").
	ForwardDrop bool
	RPFilter    int // net.ipv4.conf.{all,default}.rp_filter
	PodMTU      int // in bytes; 0 means 1500
}

// Node is a host with pods.
type Node struct {
	*Host
	IP      netip.Addr // the address other nodes use; set by AttachNode
	Subnets []netip.Prefix
	Pods    []*Pod

	cfg NodeConfig
}

// Pod is a host with one link, eth0, behind a node.
type Pod struct {
	*Host
	Node *Node
	// IP and IP6 are its addresses; zero when the node has no subnet of the
	// family.
	IP, IP6 netip.Addr
}

// Node makes a host with a pod bridge that has the first address of each subnet.
func (l *Lab) Node(cfg NodeConfig) *Node { return l.Host(cfg.Name).Node(cfg) }

// Node makes a node of a host, whose name wins.
func (h *Host) Node(cfg NodeConfig) *Node {
	l := h.lab
	if cfg.PodMTU == 0 {
		cfg.PodMTU = 1500
	}
	n := &Node{Host: h, Subnets: cfg.Subnets, cfg: cfg}
	rp := strconv.Itoa(cfg.RPFilter)
	n.Sysctl("net/ipv4/conf/all/rp_filter", rp)
	n.Sysctl("net/ipv4/conf/default/rp_filter", rp)
	n.Forward()
	if l.failed(nil) {
		return n
	}
	n.try("pod bridge", addBridge(n.nl, CNIBridge, cfg.PodMTU))
	for _, s := range cfg.Subnets {
		n.AddAddr(CNIBridge, netip.PrefixFrom(s.Masked().Addr().Next(), s.Bits()))
	}
	n.addCNIRules()
	return n
}

// AttachNode connects the node to its LAN as eth0; the first address is the
// node's IP.
func (n *Node) AttachNode(lan *LAN, addrs ...netip.Prefix) {
	n.IP = addrs[0].Addr()
	n.Attach(lan, "eth0", addrs...)
}

// Pod makes a pod behind the node, with the next free address of each subnet.
// In the lab it is called NODE.NAME.
func (n *Node) Pod(name string) *Pod { return n.PodIn(name, n.Subnets...) }

// PodIn makes a pod with addresses of the given subnets, at most one per family.
// A subnet that is none of the node's own comes to the node with it: the pod
// bridge gets its first address.
func (n *Node) PodIn(name string, subnets ...netip.Prefix) *Pod {
	return n.PodOf(n.lab.Host(n.Name+"."+name), subnets...)
}

// PodOf makes a pod of a host without links, as PodIn does.
func (n *Node) PodOf(h *Host, subnets ...netip.Prefix) *Pod {
	p := &Pod{Host: h, Node: n}
	p.node = n.Host
	n.Pods = append(n.Pods, p)
	if n.lab.failed(nil) {
		return p
	}
	port := "veth" + strconv.Itoa(len(n.Pods))
	n.try("pod "+h.Name, plug(n.nl, CNIBridge, port, n.cfg.PodMTU, p.Host, "eth0"))
	for _, s := range subnets {
		gw := s.Masked().Addr().Next()
		if !slices.Contains(n.Subnets, s) {
			n.AddAddr(CNIBridge, netip.PrefixFrom(gw, s.Bits()))
			n.Route(Route{Dst: s, Dev: CNIBridge}) // it may have been elsewhere
		}
		ip := gw
		for range n.Pods {
			ip = ip.Next()
		}
		p.AddAddr("eth0", netip.PrefixFrom(ip, s.Bits()))
		p.Route(Route{Dst: Default(ip), Via: gw})
		if ip.Is4() {
			p.IP = ip
		} else {
			p.IP6 = ip
		}
	}
	return p
}

// LeavePods undoes what PodIn did for subnets that are none of the node's own:
// they have left it.
func (n *Node) LeavePods(subnets ...netip.Prefix) {
	for _, s := range subnets {
		n.DelRoute(s)
		n.DelAddr(CNIBridge, netip.PrefixFrom(s.Masked().Addr().Next(), s.Bits()))
	}
}

// RoutePods lays the routes of a CNI plugin without an overlay: each node
// reaches the pods of every other by that node's address of the same family.
func RoutePods(nodes ...*Node) {
	for _, n := range nodes {
		for _, other := range nodes {
			if n == other {
				continue
			}
			for _, s := range other.Subnets {
				if via := other.addr(s.Addr().Is4()); via.IsValid() {
					n.Route(Route{Dst: s.Masked(), Via: via})
				}
			}
		}
	}
}

// IP6 returns the node's IPv6 address in its LAN; zero when it has none.
func (n *Node) IP6() netip.Addr { return n.addr(false) }

// addr returns the node's address of a family; zero when it has none.
func (n *Node) addr(v4 bool) netip.Addr {
	if n.IP.Is4() == v4 {
		return n.IP
	}
	return n.linkAddr("eth0", v4)
}

func (n *Node) addCNIRules() {
	f, err := n.firewall()
	if err != nil {
		n.try("nftables", err)
		return
	}
	for _, family := range families {
		for _, b := range []base{natPrerouting, natOutput, natPostrouting} {
			f.chain(family, b, nftables.ChainPolicyAccept)
		}
		// kube-proxy's rule comes before those of the CNI plugin.
		f.add(family, natPostrouting, rule(marked(masqMark), masquerade()))
		if n.cfg.ForwardDrop {
			f.chain(family, filterForward, nftables.ChainPolicyDrop)
			f.add(family, filterForward, rule(established(), accept()))
			f.add(family, filterForward, rule(marked(masqMark), accept()))
			for _, link := range [][2]string{{CNIBridge, "eth0"}, {"eth0", CNIBridge}, {CNIBridge, CNIBridge}} {
				f.add(family, filterForward, rule(iif(link[0]), oif(link[1]), accept()))
			}
		}
	}
	for _, s := range n.Subnets {
		if w, ok := n.masqueradeRule(s); ok {
			f.add(familyOf(s.Addr()), natPostrouting, w)
		}
	}
	n.try("CNI rules", f.commit())
}

func (n *Node) masqueradeRule(s netip.Prefix) (words, bool) {
	multicast := netip.MustParsePrefix("224.0.0.0/4")
	if s.Addr().Is6() {
		multicast = netip.MustParsePrefix("ff00::/8")
	}
	switch n.cfg.Masquerade {
	case MasqLeavingNode:
		return rule(src(s), notDst(s), notDst(multicast), masquerade()), true
	case MasqLeavingCluster:
		w := src(s)
		for _, c := range n.cfg.ClusterCIDRs {
			if c.Addr().Is4() == s.Addr().Is4() {
				w = rule(w, notDst(c))
			}
		}
		return rule(w, notDst(multicast), masquerade()), true
	default:
		return nil, false
	}
}

// String names the node and its address.
func (n *Node) String() string { return fmt.Sprintf("%s (%s)", n.Name, n.IP) }
