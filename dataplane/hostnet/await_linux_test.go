package hostnet

import (
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestArrivals: an address that comes is news, and one that does not is given up.
func TestArrivals(t *testing.T) {
	newHostNS(t)
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	must(t, err)
	defer h.Close()
	come, err := newArrivals()
	must(t, err)
	defer come.close()
	addr := netip.MustParseAddr("2001:db8:7::1")
	if come.wait(h, []netip.Addr{addr}); isLocal(h, addr) {
		t.Fatal("an address is there that nobody has added")
	}
	addAddr(t, "eth0", addr.String()+"/64")
	for !isLocal(h, addr) {
		if !come.next(20 * time.Second) {
			t.Fatal("no news of the address")
		}
	}
	for come.next(20 * time.Millisecond) {
	}
	if come.next(0) {
		t.Error("no time is enough time")
	}
}
