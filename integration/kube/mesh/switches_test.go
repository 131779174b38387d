//go:build linux

package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"corax/integration/kube/cluster"
	"corax/integration/kube/mesh"
	"corax/integration/lab"
)

// ourTable and ourPriority are what an agent installs.
const (
	ourTable    = 9027
	ourPriority = 100
)

// installed reports what of the agent's is on a node, in one word each.
func installed(n *lab.Node) (string, error) {
	var found []string
	l, err := n.Netlink().LinkByName("corax0")
	if err == nil && l.Attrs().Flags&net.FlagUp != 0 {
		found = append(found, "device")
	}
	rules, err := n.Netlink().RuleList(netlink.FAMILY_V4)
	if err != nil {
		return "", err
	}
	for _, r := range rules {
		if r.Priority == ourPriority && r.Table == ourTable {
			found = append(found, "rule")
		}
	}
	routes, err := n.Netlink().RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: ourTable}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return "", err
	}
	if len(routes) > 0 {
		found = append(found, "routes")
	}
	return strings.Join(found, " "), nil
}

func wantInstalled(n *lab.Node, want string) func(context.Context) error {
	return func(context.Context) error {
		if got, err := installed(n); err != nil || got != want {
			return fmt.Errorf("on %s is %q, %w, not %q", n.Name, got, err, want)
		}
		return nil
	}
}

// rss is the resident memory of a process, in bytes.
func rss(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			n, err := strconv.Atoi(f[1])
			return n << 10, err
		}
	}
	return 0, errors.New("no VmRSS")
}

// TestSwitches turns tunnel mode, then both modes, off and on again in raven-cfg:
// agents follow without a restart.
func TestSwitches(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"cloud-gw", "edge-a-1", "edge-c-gw"} {
		n, err := rss(w.Agent(name).Process().PID())
		if err != nil {
			t.Error(err)
		}
		t.Logf("the agent of %s has %.1f MB", name, float64(n)/1e6)
	}
	node := w.Node("edge-a-1")
	reach := func(peer *lab.Node) error {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := node.Pods[0].Ping(ctx, peer.Pods[0].IP, lab.PingOptions{})
		return err
	}
	set := func(tunnel, proxy bool) {
		t.Helper()
		patch := fmt.Sprintf(`{"data":{"enable-l3-tunnel":"%v","enable-l7-proxy":"%v"}}`, tunnel, proxy)
		if _, err := w.Cluster.Client.CoreV1().ConfigMaps("kube-system").Patch(t.Context(), "raven-cfg", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := wantInstalled(node, "device rule routes")(t.Context()); err != nil {
		t.Fatal(err)
	}
	peer := w.Node("edge-b-1")
	for _, proxy := range []bool{true, false} { // what stays on
		set(false, proxy)
		for _, n := range w.Nodes() {
			cluster.Eventually(t, 30*time.Second, "tunnel mode off", wantInstalled(n, ""))
		}
		if err := reach(peer); err == nil {
			t.Error("a pod of another domain is reached although tunnel mode is off")
		}
		set(true, true)
		cluster.Eventually(t, 30*time.Second, "tunnel mode on", wantInstalled(node, "device rule routes"))
		cluster.Eventually(t, mesh.Settle, "the other domain", func(context.Context) error { return reach(peer) })
	}
	allowList(t, w)
	for _, a := range w.Agents() {
		select {
		case <-a.Process().Done():
			t.Errorf("the agent of %s has ended: %v", a.Host.Name, a.Process().Err())
		default:
		}
	}
}

// allowList writes an allow list into raven-cfg that lacks edge-a, a bad one, and
// none: the hub of the cloud follows, and other edges are not cut.
func allowList(t *testing.T, w *world) {
	t.Helper()
	hub := w.Node("cloud-gw").Pods[0].IP
	set := func(list string) {
		t.Helper()
		patch := fmt.Sprintf(`{"data":{"acl-entry":%q}}`, list)
		if _, err := w.Cluster.Client.CoreV1().ConfigMaps("kube-system").Patch(t.Context(), "raven-cfg", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	reach := func(ctx context.Context, from string) error {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		_, err := w.Node(from).Pods[0].Ping(ctx, hub, lab.PingOptions{})
		return err
	}
	cut := func(ctx context.Context) error {
		if reach(ctx, "edge-a-1") == nil {
			return errors.New("it reaches the cloud")
		}
		return reach(ctx, "edge-b-1")
	}
	set("100.64.0.0/10, 203.0.113.20/32, 203.0.113.30/32") // edge-b, edge-c
	cluster.Eventually(t, mesh.Settle, "edge-a outside the list", cut)
	set("203.0.113.10/32, nonsense")
	w.says(t, "cloud-gw", "acl-entry")
	if err := cut(t.Context()); err != nil {
		t.Errorf("with a bad list the one before is not in force: %v", err)
	}
	set("")
	cluster.Eventually(t, mesh.Settle, "edge-a without a list", func(ctx context.Context) error { return reach(ctx, "edge-a-1") })
}
