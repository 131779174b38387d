//go:build linux

package lab

import (
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// flushConntrack forgets every flow of the calling thread's namespace.
func flushConntrack() error {
	nl, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer nl.Close()
	return nl.ConntrackTableFlush(netlink.ConntrackTable)
}

// neighbourDiscovery matches the ICMPv6 types 133 to 137 (RFC 4861).
func neighbourDiscovery() words {
	return rule(l4(unix.IPPROTO_ICMPV6), words{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Range{Op: expr.CmpOpEq, Register: reg, FromData: []byte{133}, ToData: []byte{137}},
	})
}
