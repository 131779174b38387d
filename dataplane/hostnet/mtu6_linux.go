package hostnet

import (
	"cmp"
	"strconv"

	"github.com/vishvananda/netlink"

	"corax/dataplane"
)

// syncMTU6 makes the kernel refuse forwarded IPv6 packets at the MTU of the
// routes. For IPv4 it looks at the route; for IPv6 only at this setting of the
// device, unless the route's MTU is locked, and a lock would keep host programs
// from learning that a path carries less. With routes of several MTUs the
// largest counts, and the fabric refuses for the others.
//
// Only /proc/sys has the setting. Where that is read-only, senders learn in two
// steps: the device's MTU from the kernel, the path's from the fabric.
func syncMTU6(l netlink.Link, mtu int, routes []dataplane.HostRoute) (changes int) {
	want := 0
	mtu = cmp.Or(mtu, l.Attrs().MTU)
	for _, r := range routes {
		if r.Prefix.Addr().Is6() {
			want = max(want, min(routeMTU6(r, mtu), mtu))
		}
	}
	path := []string{"net/ipv6/conf", l.Attrs().Name, "mtu"}
	have := readSysctl(path...)
	if want == 0 || have == "" || have == strconv.Itoa(want) {
		return 0
	}
	if writeSysctl(strconv.Itoa(want), path...) != nil {
		return 0
	}
	return 1
}

// routeMTU6 is the MTU of an IPv6 route into the device; 0 means the device's.
func routeMTU6(r dataplane.HostRoute, mtu int) int {
	if r.MTU != 0 {
		mtu = r.MTU
	}
	if mtu == 0 {
		return 0
	}
	return max(mtu, dataplane.MinMTU6)
}
