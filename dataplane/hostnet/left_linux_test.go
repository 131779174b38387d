package hostnet

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"corax/dataplane"
)

// leave makes what an agent with a device leaves when it is killed, and returns
// how the host was before.
func leave(t *testing.T) (before string) {
	t.Helper()
	newHostNS(t)
	addBridge(t)
	addChain(t, nftables.TableFamilyIPv4, "filter", "FORWARD", nftables.ChainTypeFilter,
		nftables.ChainHookForward, 0, nftables.ChainPolicyDrop, accept("docker0"))
	before = hostDump(t)
	tun := addTUN(t, "corax0")
	apply(t, newHost(t, Config{}), testState())
	must(t, tun.Close())
	return before
}

func TestClear(t *testing.T) {
	before := leave(t)
	if d := cmp.Diff(before, hostDump(t)); d == "" {
		t.Fatal("nothing was left")
	}
	h := newHost(t, Config{})
	must(t, h.Clear())
	if d := cmp.Diff(before, hostDump(t)); d != "" {
		t.Errorf("after Clear (-before +after):\n%s", d)
	}
	must(t, h.Clear()) // nothing is there, and that is no error
}

// TestLeaveTheLiving: what an agent that lives has is not touched by another one
// that has no device.
func TestLeaveTheLiving(t *testing.T) {
	newHostNS(t)
	addBridge(t)
	addTUN(t, "corax0")
	apply(t, newHost(t, Config{}), testState())
	before := hostDump(t)
	h := newHost(t, Config{})
	if err := h.Clear(); !errors.Is(err, ErrInUse) {
		t.Errorf("Clear: %v, want ErrInUse", err)
	}
	problems, err := h.Hold(context.Background(), State{})
	if err != nil || len(problems) != 1 || problems[0].Name != "device_in_use" {
		t.Errorf("Hold: %v, %v", problems, err)
	}
	if d := cmp.Diff(before, hostDump(t)); d != "" {
		t.Errorf("touched (-before +after):\n%s", d)
	}
}

// TestHold keeps closed what a dead agent left, for subnets that come later too,
// although its device is there.
func TestHold(t *testing.T) {
	before := leave(t)
	h := newHost(t, Config{})
	s := testState()
	s.Routes = append(s.Routes, dataplane.HostRoute{Prefix: netip.MustParsePrefix("10.30.0.0/16")})
	problems, err := h.Hold(context.Background(), s)
	if err != nil || len(problems) != 0 {
		t.Fatalf("Hold: %v, %v", problems, err)
	}
	for _, dst := range []string{"10.20.1.2", "fd10:20::2", "10.30.1.2"} {
		if r, err := netlink.RouteGet(netip.MustParseAddr(dst).AsSlice()); !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("route to %s: %v, %v; want unreachable", dst, r, err)
		}
	}
	if _, err := netlink.RouteGet(netip.MustParseAddr("10.40.1.2").AsSlice()); err != nil {
		t.Errorf("the default route does not work: %v", err)
	}
	again := hostDump(t)
	if _, err := h.Hold(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(again, hostDump(t)); d != "" {
		t.Errorf("a second Hold (-before +after):\n%s", d)
	}
	must(t, h.Clear())
	if d := cmp.Diff(before, hostDump(t)); d != "" {
		t.Errorf("after Clear (-before +after):\n%s", d)
	}
}

// TestHoldNothing: where no agent with a device was, nothing is installed.
func TestHoldNothing(t *testing.T) {
	newHostNS(t)
	addBridge(t)
	before := hostDump(t)
	h := newHost(t, Config{})
	if problems, err := h.Hold(context.Background(), testState()); err != nil || len(problems) != 0 {
		t.Errorf("Hold: %v, %v", problems, err)
	}
	if d := cmp.Diff(before, hostDump(t)); d != "" {
		t.Errorf("(-before +after):\n%s", d)
	}
}

// TestCloseSaysWhatStays: rules that could not be looked for may still be there.
func TestCloseSaysWhatStays(t *testing.T) {
	for _, tt := range []struct {
		name string
		left bool // something of ours is on the host
		err  error
		want bool
	}{
		{"no descriptors", true, unix.EMFILE, true},
		{"no descriptors, nothing left", false, unix.EMFILE, true},
		{"no rights", true, unix.EPERM, true},
		{"no rights, nothing left", false, unix.EPERM, false},
		{"no netfilter", true, unix.EPROTONOSUPPORT, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.left {
				leave(t)
			} else {
				newHostNS(t)
			}
			h := newHost(t, Config{})
			h.dialNFT = func() (*nftables.Conn, error) { return nil, tt.err }
			err := h.Close()
			if tt.want != (err != nil) || err != nil && (!errors.Is(err, tt.err) || !strings.HasPrefix(err.Error(), "hostnet: close: remove our nftables rules: ")) {
				t.Errorf("Close: %v", err)
			}
			if strings.Contains(hostDump(t), "protocol 67") {
				t.Error("routes or rules stay")
			}
		})
	}
}
