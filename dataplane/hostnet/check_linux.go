package hostnet

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
)

// Probe checks the global settings that pod traffic of both families needs, and
// whether nftables is there. It changes nothing.
func Probe() []Problem {
	out := append(forwarding4(), forwarding6()...)
	c, err := nftables.New()
	if err == nil {
		_, err = hasTable(c)
	}
	if err != nil {
		out = append(out, noNFT(err))
	}
	return out
}

// settingProblems checks what the own subnets need; a node without pods of a
// family forwards nothing of it.
func settingProblems(subnets [2][]netip.Prefix) (out []Problem) {
	if len(subnets[0]) > 0 {
		out = append(out, forwarding4()...)
	}
	if len(subnets[1]) > 0 {
		out = append(out, forwarding6()...)
	}
	return out
}

func forwarding4() []Problem {
	if readSysctl("net/ipv4/ip_forward") != "0" {
		return nil
	}
	return []Problem{{"ip_forward", "IPv4 forwarding is off: pods of this node cannot be reached", "sysctl -w net.ipv4.ip_forward=1"}}
}

// forwarding6 looks at the global switch: Linux forwards IPv6 by that one, the
// per-device ones only decide about router advertisements.
func forwarding6() []Problem {
	if readSysctl("net/ipv6/conf/all/forwarding") != "0" {
		return nil
	}
	return []Problem{{"ip6_forward", "IPv6 forwarding is off: pods of this node cannot be reached over IPv6", "sysctl -w net.ipv6.conf.all.forwarding=1"}}
}

// noNFT says what is not covered without nftables.
func noNFT(err error) Problem {
	return Problem{
		Name: "nftables",
		What: fmt.Sprintf("nftables cannot be used (%v): where the CNI masquerades, pods of this node do not reach other domains with their own address, and host programs only with the source of the route", err),
		Mend: "modprobe -a nf_tables nft_chain_nat nft_nat",
	}
}
