//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"

	"corax/integration/lab"
)

// podMTU is the MTU of every pod's link, in bytes, whatever the system: what a
// path of Corax is assumed to carry, so that all systems see the same packets.
const podMTU = 1360

// network is the topology of one round.
type network struct {
	lab   *lab.Lab
	wan   *lab.Host
	sides [2]*side
}

// side is one domain: a pod on a node, and the gateway node.
type side struct {
	name  string
	pod   *lab.Pod
	node  *lab.Node
	gw    *lab.Node
	wanIP netip.Addr // of the gateway, on the WAN
}

// subnets are the pod subnets of the domain.
func (s *side) subnets() []netip.Prefix {
	return []netip.Prefix{s.node.Subnets[0].Masked(), s.gw.Subnets[0].Masked()}
}

// other returns the side across the WAN.
func (n *network) other(s *side) *side {
	if s == n.sides[0] {
		return n.sides[1]
	}
	return n.sides[0]
}

// newNetwork builds the hosts and the underlay. Only pods of the same node reach
// each other until a system is started.
func newNetwork(l *lab.Lab) (*network, error) {
	n := &network{lab: l, wan: l.Host("wan")}
	n.wan.Forward()
	for i := range n.sides {
		s, err := n.addSide(i)
		if err != nil {
			return nil, err
		}
		n.sides[i] = s
	}
	return n, l.Err()
}

func (n *network) addSide(i int) (*side, error) {
	s := &side{name: string(rune('a' + i))}
	octet := byte(i + 1)
	// As on a Kubernetes node, all of them track connections, whatever the
	// system: CNI plugin and kube-proxy have NAT rules.
	node := func(name string, third byte) *lab.Node {
		return n.lab.Node(lab.NodeConfig{
			Name:         s.name + "-" + name,
			Subnets:      []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, third, 0}), 24)},
			ClusterCIDRs: lab.ClusterCIDRs(),
			Masquerade:   lab.MasqLeavingCluster,
			PodMTU:       podMTU,
		})
	}
	s.node = node("node", 10*octet+1)
	s.gw = node("gw", 10*octet)
	s.pod = s.node.Pod("pod")

	s.gw.IP = netip.AddrFrom4([4]byte{192, 168, octet, 10})
	s.node.IP = netip.AddrFrom4([4]byte{192, 168, octet, 11})
	s.wanIP = netip.AddrFrom4([4]byte{203, 0, 113, 16*octet + 2})
	router := s.wanIP.Prev()
	if err := errors.Join(
		wire(s.node.Host, "eth0", netip.PrefixFrom(s.node.IP, 24), s.gw.Host, "eth0", netip.PrefixFrom(s.gw.IP, 24)),
		wire(s.gw.Host, "wan", netip.PrefixFrom(s.wanIP, 28), n.wan, s.name, netip.PrefixFrom(router, 28)),
	); err != nil {
		return nil, errors.Join(n.lab.Err(), err)
	}
	s.node.Route(lab.Route{Dst: lab.Default(s.gw.IP), Via: s.gw.IP})
	s.gw.Route(lab.Route{Dst: lab.Default(router), Via: router})
	return s, nil
}

// wire connects two hosts by a veth pair of MTU 1500 and gives each end its address.
func wire(a *lab.Host, aLink string, aAddr netip.Prefix, b *lab.Host, bLink string, bAddr netip.Prefix) error {
	var ns *os.File
	err := b.Do(func() (err error) {
		ns, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: aLink, MTU: 1500},
		PeerName:      bLink,
		PeerMTU:       1500,
		PeerNamespace: netlink.NsFd(int(ns.Fd())),
	}
	if err := a.Netlink().LinkAdd(veth); err != nil {
		return fmt.Errorf("wire %s to %s: %w", a.Name, b.Name, err)
	}
	a.SetLink(aLink, true)
	b.SetLink(bLink, true)
	a.AddAddr(aLink, aAddr)
	b.AddAddr(bLink, bAddr)
	return nil
}

// setUpTunnel waits for the TUN device that a program makes on a gateway, takes
// it up and sends the other domain's subnets into it.
func (n *network) setUpTunnel(ctx context.Context, s *side, link string) error {
	if err := until(ctx, func() error {
		_, err := s.gw.Netlink().LinkByName(link)
		return err
	}); err != nil {
		return fmt.Errorf("%s on %s: %w", link, s.gw.Name, err)
	}
	s.gw.SetMTU(link, tunnelMTU)
	s.gw.SetLink(link, true)
	for _, dst := range n.other(s).subnets() {
		s.gw.Route(lab.Route{Dst: dst, Dev: link})
	}
	return n.lab.Err()
}

// until calls f until it returns nil, or until ctx ends.
func until(ctx context.Context, f func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
