//go:build linux

package tunnel_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"corax/integration/lab"
)

// TestDeviceDeleted deletes the TUN of a running agent: the agent ends and says
// so, its pods are told that there is no way instead of sending in the clear, and
// the next start mends it.
func TestDeviceDeleted(t *testing.T) {
	f := newFaults(t, lab.Options{Nodes: 3})
	node, a := f.edge().Nodes[2], f.edge().Agents[2]
	to := f.cloud().Nodes[1].Pods[0].IP
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := node.Pods[0].PingUntil(ctx, to, lab.PingOptions{}); err != nil {
		t.Fatal(err)
	}
	clear, err := node.Capture("eth0", func(p lab.Frame) bool { return p.Dst == to || p.Src == to })
	if err != nil {
		t.Fatal(err)
	}
	link, err := node.Netlink().LinkByName("corax0")
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Netlink().LinkDel(link); err != nil {
		t.Fatal(err)
	}
	wantEnd(t, a, "", 1, "corax: agent: hostnet: read TUN corax0: the device was deleted")
	var refused *lab.ICMPError
	if _, err := node.Pods[0].Ping(ctx, to, lab.PingOptions{}); !errors.As(err, &refused) || refused.Type != 3 {
		t.Errorf("ping without the device: %v", err)
	}
	if n := clear.Count(); n != 0 {
		t.Errorf("%d packets left in the clear", n)
	}
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := node.Pods[0].PingUntil(ctx, to, lab.PingOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := node.Pods[0].EchoTCP(ctx, netip.AddrPortFrom(to, faultPort), 10_000); err != nil {
		t.Error(err)
	}
	f.undisturbed()
}
