package hostnet

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// withoutDevice leaves out what a dump says of the settings of our device.
func withoutDevice(dump string) string {
	var out []string
	for line := range strings.Lines(dump) {
		if !strings.HasPrefix(line, "link corax0 ") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

// TestOff switches tunnel mode off and on again: in between nothing of ours is on
// the host but a device that is down.
func TestOff(t *testing.T) {
	newHostNS(t)
	addBridge(t)
	addChain(t, nftables.TableFamilyIPv4, "filter", "FORWARD", nftables.ChainTypeFilter,
		nftables.ChainHookForward, 0, nftables.ChainPolicyDrop, accept("docker0"))
	addTUN(t, "corax0")
	h := newHost(t, Config{})
	up := func() bool {
		t.Helper()
		l, err := netlink.LinkByName("corax0")
		if err != nil {
			t.Fatal(err)
		}
		return l.Attrs().RawFlags&unix.IFF_UP != 0
	}
	apply(t, h, State{Off: true})
	before := hostDump(t)
	if up() {
		t.Error("the device is up although tunnel mode is off")
	}
	apply(t, h, testState())
	on := hostDump(t)
	if !up() || on == before {
		t.Fatal("tunnel mode is not on")
	}
	apply(t, h, State{Off: true})
	if d := cmp.Diff(withoutDevice(before), withoutDevice(hostDump(t))); d != "" || up() {
		t.Errorf("something stays when tunnel mode is switched off (-before +after), up %v:\n%s", up(), d)
	}
	held := hostDump(t)
	apply(t, h, State{Off: true})
	if d := cmp.Diff(held, hostDump(t)); d != "" {
		t.Errorf("a second time something changes:\n%s", d)
	}
	apply(t, h, testState())
	if d := cmp.Diff(on, hostDump(t)); d != "" || !up() {
		t.Errorf("tunnel mode is not as before (-before +after), up %v:\n%s", up(), d)
	}
}
