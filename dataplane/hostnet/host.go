package hostnet

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"

	"corax/dataplane"
)

// What the agent owns on a host.
const (
	// DefaultName is the name of the TUN device.
	DefaultName = "corax0"
	// Table is the routing table that holds the remote subnets.
	Table = 9027
	// RulePriority is the priority of the rule that leads to Table.
	RulePriority = 100
	// Protocol marks our routes and rules (rtm_protocol); 67 has no owner in
	// iproute2's rt_protos.
	Protocol = 67
	// UnreachableMetric is the metric of the routes that catch packets when
	// the device is gone.
	UnreachableMetric uint32 = 4278198272
	// NFTable is the name of the nftables table, family inet.
	NFTable = "corax"
	// Comment marks our two rules in a foreign FORWARD chain.
	Comment = "corax"
)

// ErrRaven says that links or rules of a Raven agent are on this host and that
// taking over was not asked for.
var ErrRaven = errors.New("a Raven agent's devices or rules are on this host")

// ErrInUse says that another process is attached to the device.
var ErrInUse = errors.New("another process has the device")

// ErrClosed says that the Host has been closed.
var ErrClosed = errors.New("hostnet: closed")

// Config configures a [Host]. The zero value is valid.
type Config struct {
	// Log gets state changes; nil discards them.
	Log *slog.Logger
	// Name of the TUN device; empty means DefaultName.
	Name string
	// TakeOver removes what a Raven agent left instead of refusing to start.
	TakeOver bool
	// HostSource overrides the address that host programs get as source on
	// packets to other domains: at most one per family. A family without one
	// uses an address that the host has inside its own subnets.
	HostSource []netip.Addr
}

func (c Config) validate() error {
	if !validName(c.Name) {
		return fmt.Errorf("hostnet: device name %q: want 1 to 15 characters, no space, slash or colon", c.Name)
	}
	var have [2]bool
	for _, a := range c.HostSource {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() || a.Zone() != "" {
			return fmt.Errorf("hostnet: host source %v: not a plain unicast address", a)
		}
		i := familyIndex(a)
		if have[i] {
			return fmt.Errorf("hostnet: host source %v: a second address of its family", a)
		}
		have[i] = true
	}
	return nil
}

// validName follows the kernel's dev_valid_name, which also bars "." and "..".
func validName(s string) bool {
	if s == "" || len(s) > 15 || s == "." || s == ".." {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || r == '/' || r == ':' || r == '%'
	})
}

// familyIndex is 0 for IPv4, 1 for IPv6.
func familyIndex(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// State is what the host should have: plain values, not changed after they were
// handed to [Host.Apply].
type State struct {
	// Subnets are this node's own pod subnets.
	Subnets []netip.Prefix
	// Routes are the remote subnets that the kernel sends into the device. An
	// MTU of zero means State.MTU.
	Routes []dataplane.HostRoute
	// MTU of the device in bytes; zero leaves it as it is.
	MTU int
	// Off says that tunnel mode is switched off: rules, routes and NAT go, and the
	// device goes down. The rest does not count then.
	Off bool
}

// Problem is something on the host that keeps traffic from flowing and that is
// not ours to change, or that we tried to change in vain.
type Problem struct {
	// Name is a stable word for tests and logs, for example "ip_forward".
	Name string
	// What says in one sentence what does not work, and why.
	What string
	// Mend is the command that mends it; empty when no single command does.
	Mend string
}

// String returns the problem as status shows it.
func (p Problem) String() string {
	if p.Mend == "" {
		return p.What
	}
	return p.What + "; mend it with: " + p.Mend
}

// splitFamilies sorts prefixes by family, dropping what is not valid.
func splitFamilies(ps []netip.Prefix) (out [2][]netip.Prefix) {
	for _, p := range ps {
		if p.IsValid() && !p.Addr().Is4In6() {
			i := familyIndex(p.Addr())
			out[i] = append(out[i], p.Masked())
		}
	}
	return out
}
