package natlab

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Link says what a packet suffers. The zero value is a perfect link with an
// MTU of 1500.
type Link struct {
	Latency time.Duration // one way
	Jitter  time.Duration // latency varies evenly by as much in either direction; packets stay in order
	Loss    float64       // probability that a packet is lost, 0 to 1
	Reorder float64       // probability that a packet is late by up to twice Jitter plus 2 ms, and may be overtaken
	MTU     int           // bytes of an IP packet; 0: 1500
	Silent  bool          // too big packets vanish: no EMSGSIZE, no ICMP (a black hole)
}

// NetworkConfig describes a network.
type NetworkConfig struct {
	Name string
	Link Link // what every packet across it suffers
	Hops int  // routers of its own inside it: each costs one TTL
}

// Network is a segment: everything attached to it reaches everything else on
// it by address. What is addressed elsewhere goes to its router, if there is
// one whose inside it is. Make it with [Lab.Network].
type Network struct {
	lab     *Lab
	cfg     NetworkConfig
	ifs     int
	addrs   map[netip.Addr]*Interface
	routes  []route
	gateway *Interface
	pairs   map[[2]*Interface]Link
	last    map[[2]*Interface]time.Time // newest arrival, for order
}

type route struct {
	prefix netip.Prefix
	via    *Interface
}

// node is what an interface belongs to.
type node interface {
	receive(in *Interface, p *packet)
}

// Interface is where a host or a router is attached to a network.
type Interface struct {
	name     string
	net      *Network
	node     node
	link     Link
	prefixes []netip.Prefix
}

// Network adds a network.
func (l *Lab) Network(cfg NetworkConfig) *Network {
	return &Network{
		lab: l, cfg: cfg, addrs: make(map[netip.Addr]*Interface),
		pairs: make(map[[2]*Interface]Link), last: make(map[[2]*Interface]time.Time),
	}
}

// SetLink changes what every packet across the network suffers from now on.
func (n *Network) SetLink(link Link) { n.cfg.Link = link }

// SetPair gives packets between two interfaces, both ways, a link of their own
// in place of the network's and the interfaces' links.
func (n *Network) SetPair(a, b *Interface, link Link) {
	n.pairs[[2]*Interface{a, b}] = link
	n.pairs[[2]*Interface{b, a}] = link
}

// attach adds an interface that answers to the prefixes' addresses. An address
// that is there already moves to the new interface.
func (n *Network) attach(name string, owner node, link Link, prefixes []netip.Prefix) *Interface {
	i := &Interface{name: name, net: n, node: owner, link: link}
	n.ifs++
	i.setAddrs(prefixes)
	return i
}

func (i *Interface) setAddrs(prefixes []netip.Prefix) {
	for _, p := range i.prefixes {
		if i.net.addrs[p.Addr()] == i {
			delete(i.net.addrs, p.Addr())
		}
	}
	i.prefixes = slices.Clone(prefixes)
	for _, p := range prefixes {
		i.net.addrs[p.Addr()] = i
	}
}

// SetLink changes the interface's access link: what it adds to the network's
// link for everything that it sends or receives.
func (i *Interface) SetLink(link Link) { i.link = link }

// Network returns the network that the interface is attached to.
func (i *Interface) Network() *Network { return i.net }

// Addrs returns the interface's addresses with their prefix lengths.
func (i *Interface) Addrs() []netip.Prefix { return slices.Clone(i.prefixes) }

// addr returns the first address of the family.
func (i *Interface) addr(v6 bool) (netip.Addr, bool) {
	for _, p := range i.prefixes {
		if p.Addr().Is6() == v6 {
			return p.Addr(), true
		}
	}
	return netip.Addr{}, false
}

// next returns the interface that gets what is sent to dst.
func (n *Network) next(from *Interface, dst netip.Addr) *Interface {
	if to := n.addrs[dst]; to != nil {
		return to
	}
	var best *route
	for k := range n.routes {
		r := &n.routes[k]
		if r.prefix.Contains(dst) && (best == nil || r.prefix.Bits() > best.prefix.Bits()) {
			best = r
		}
	}
	if best != nil && best.via != from {
		return best.via
	}
	if n.gateway != from {
		return n.gateway
	}
	return nil
}

// path returns what lies between two interfaces.
func (n *Network) path(from, to *Interface) Link {
	if l, ok := n.pairs[[2]*Interface{from, to}]; ok {
		return l
	}
	sum := n.cfg.Link
	sum.MTU = sum.mtu()
	for _, l := range []Link{from.link, to.link} {
		sum.Latency += l.Latency
		sum.Jitter += l.Jitter
		sum.Loss = 1 - (1-sum.Loss)*(1-l.Loss)
		sum.Reorder = 1 - (1-sum.Reorder)*(1-l.Reorder)
		if l.mtu() <= sum.MTU {
			sum.MTU = l.mtu()
			sum.Silent = sum.Silent || l.Silent
		}
	}
	return sum
}

func (l Link) mtu() int {
	if l.MTU == 0 {
		return 1500
	}
	return l.MTU
}

// transmit sends a packet across the network. The error says that the packet
// is too big for its very next link.
func (n *Network) transmit(from *Interface, p *packet) error {
	to := n.next(from, p.dst.Addr())
	if to == nil {
		n.lab.drop(n.cfg.Name, "no route", p)
		return nil
	}
	link := n.path(from, to)
	if p.size() > link.mtu() && p.df {
		n.lab.drop(n.cfg.Name, "too big", p)
		if link.Silent {
			return nil
		}
		return &TooBigError{MTU: link.mtu()}
	}
	if p.ttl -= n.cfg.Hops; p.ttl <= 0 {
		n.lab.drop(n.cfg.Name, "ttl", p)
		return nil
	}
	if link.Loss > 0 && n.lab.rand.Float64() < link.Loss {
		n.lab.drop(n.cfg.Name, "lost", p)
		return nil
	}
	n.lab.queue.push(event{at: n.arrival(from, to, link), to: to, packet: p})
	return nil
}

// arrival draws when a packet that leaves now arrives.
func (n *Network) arrival(from, to *Interface, link Link) time.Time {
	delay := link.Latency
	if link.Jitter > 0 {
		delay += time.Duration(n.lab.rand.Int64N(int64(2*link.Jitter)+1)) - link.Jitter
	}
	at := n.lab.now.Add(max(delay, 0))
	if link.Reorder > 0 && n.lab.rand.Float64() < link.Reorder {
		return at.Add(time.Duration(n.lab.rand.Int64N(int64(2*link.Jitter + 2*time.Millisecond))))
	}
	pair := [2]*Interface{from, to}
	if last := n.last[pair]; at.Before(last) {
		at = last
	}
	n.last[pair] = at
	return at
}

// TooBigError says that a packet with DF was larger than the next link's MTU,
// as EMSGSIZE does.
type TooBigError struct{ MTU int } // bytes of an IP packet

func (e *TooBigError) Error() string {
	return fmt.Sprintf("natlab: message too long for MTU %d", e.MTU)
}
