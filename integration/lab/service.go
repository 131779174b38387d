//go:build linux

package lab

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// masqMark is kube-proxy's mark for packets to be masqueraded.
const masqMark = 0x4000

// Protocol is TCP or UDP.
type Protocol uint8

// The protocols of a Service.
const (
	TCP Protocol = unix.IPPROTO_TCP
	UDP Protocol = unix.IPPROTO_UDP
)

// Service is a Kubernetes Service with a cluster IP.
type Service struct {
	IP       netip.Addr
	Port     uint16
	Protocol Protocol
	Backends []netip.AddrPort // of IP's family; a flow takes one by chance
	// MasqueradeAll hides every client behind its node, as kube-proxy's flag
	// of that name does; otherwise only clients outside the cluster CIDRs, the
	// node's own programs among them.
	MasqueradeAll bool
}

// AddService makes the Service work from the node and its pods, by the rules that
// kube-proxy lays: destination NAT in PREROUTING and OUTPUT, and a mark that
// asks for masquerade in POSTROUTING.
func (n *Node) AddService(s Service) {
	if n.lab.failed(nil) {
		return
	}
	f, err := n.firewall()
	if err != nil {
		n.try("nftables", err)
		return
	}
	family := familyOf(s.IP)
	to := rule(dst(netip.PrefixFrom(s.IP, s.IP.BitLen())), dport(byte(s.Protocol), s.Port))
	for _, chain := range []base{natPrerouting, natOutput} {
		f.add(family, chain, rule(to, n.outsideCluster(s), setMark(masqMark)))
		for i, b := range s.Backends {
			f.add(family, chain, rule(to, oneOf(uint32(len(s.Backends)-i)), dnat(b)))
		}
	}
	n.try("service "+s.IP.String(), f.commit())
}

// SetServices replaces the Services of an earlier SetServices, all at once, as
// kube-proxy follows what becomes of them. They are IPv4 and apart from those of
// AddService.
func (n *Node) SetServices(services ...Service) error {
	f, err := n.firewall()
	if err != nil {
		return fmt.Errorf("lab: services of %s: %w", n.Name, err)
	}
	const family = nftables.TableFamilyIPv4
	f.conn.AddTable(&nftables.Table{Family: family, Name: setPrerouting.table})
	f.conn.DelTable(&nftables.Table{Family: family, Name: setPrerouting.table})
	for _, chain := range []base{setPrerouting, setOutput} {
		f.chain(family, chain, nftables.ChainPolicyAccept)
		for _, s := range services {
			to := rule(dst(netip.PrefixFrom(s.IP, s.IP.BitLen())), dport(byte(s.Protocol), s.Port))
			f.add(family, chain, rule(to, n.outsideCluster(s), setMark(masqMark)))
			for i, b := range s.Backends {
				f.add(family, chain, rule(to, oneOf(uint32(len(s.Backends)-i)), dnat(b)))
			}
		}
	}
	if err := f.commit(); err != nil {
		return fmt.Errorf("lab: services of %s: %w", n.Name, err)
	}
	return nil
}

// Chains of SetServices, right before those of AddService.
var (
	setPrerouting = base{"services", "PREROUTING", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityRef(-101)}
	setOutput     = base{"services", "OUTPUT", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityRef(-101)}
)

// outsideCluster matches the clients that are masqueraded.
func (n *Node) outsideCluster(s Service) words {
	var w words
	if s.MasqueradeAll {
		return w
	}
	for _, c := range n.cfg.ClusterCIDRs {
		if c.Addr().Is4() == s.IP.Is4() {
			w = rule(w, notSrc(c))
		}
	}
	return w
}
