//go:build linux

package lab

import (
	"net/netip"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// blockForward comes before the chains of a NAT.
var blockForward = base{"blocked", "forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityRef(-20)}

// Block makes a router drop the UDP between its inside and the given addresses,
// of flows that exist as well, instead of what it blocked before. SetNAT
// ends it.
func (h *Host) Block(addrs ...netip.Addr) { h.block(l4(unix.IPPROTO_UDP), addrs) }

// BlockAll is Block for every protocol.
func (h *Host) BlockAll(addrs ...netip.Addr) { h.block(nil, addrs) }

func (h *Host) block(what words, addrs []netip.Addr) {
	if h.lab.failed(nil) {
		return
	}
	f, err := h.firewall()
	if err != nil {
		h.try("nftables", err)
		return
	}
	for _, family := range families {
		t := &nftables.Table{Family: family, Name: blockForward.table}
		f.conn.AddTable(t) // deleting one that is not there fails
		f.conn.DelTable(t)
		f.chain(family, blockForward, nftables.ChainPolicyAccept)
		for _, a := range addrs {
			if familyOf(a) != family {
				continue
			}
			p := netip.PrefixFrom(a, a.BitLen())
			f.add(family, blockForward, rule(what, src(p), drop()))
			f.add(family, blockForward, rule(what, dst(p), drop()))
		}
	}
	h.try("block", f.commit())
}
