//go:build linux

package tunnel_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"corax/integration/lab"
)

// TestKilledThenWithoutTUN kills an agent with a TUN and starts it again without
// one. Asked for, the new one removes what the old one left. By accident, it
// keeps the pods' packets in, until SIGTERM.
func TestKilledThenWithoutTUN(t *testing.T) {
	topo := lab.Standard(lab.ForTest(t), lab.Options{Edges: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if _, err := topo.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	h := newHosts(t, topo, false)
	h.each(t, (*lab.Agent).Start)
	h.ready(ctx, t)
	n, a := topo.Domains[1].Nodes[0], topo.Domains[1].Agents[0]
	far := topo.Domains[0].Nodes[1].Pods[0]
	untouched := func(when string) {
		t.Helper()
		now := slices.DeleteFunc(hostState(t, n.Host), func(line string) bool {
			return strings.HasPrefix(line, "file /run/wireguard/") // of who runs
		})
		if diff := cmp.Diff(h.before[n.Name], now); diff != "" {
			t.Errorf("%s:\n%s", when, diff)
		}
	}
	kill := func() {
		t.Helper()
		if err := a.Kill(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(h.before[n.Name], hostState(t, n.Host)); diff == "" {
			t.Fatal("the killed agent left nothing")
		}
	}

	kill()
	a.SetArgs("--datapath", "netstack")
	startAgent(ctx, t, a)
	untouched("with --datapath netstack")
	if err := a.Stop(); err != nil {
		t.Error(err)
	}
	untouched("with --datapath netstack, stopped")

	a.SetArgs()
	startAgent(ctx, t, a)
	waitLink(ctx, t, a.Host, "corax0")
	h.ready(ctx, t)
	kill()
	leaks := watchLeaks(t, topo)
	mountOver(t, a.Host, "/dev/net", "tmpfs")
	startAgent(ctx, t, a)
	var refused *lab.ICMPError
	for !errors.As(pingOnce(ctx, n.Pods[0], far), &refused) && ctx.Err() == nil {
	}
	if refused == nil || refused.Type != 3 {
		t.Errorf("a pod whose node has no TUN any more is told %v", refused)
	}
	leaks.none(t)
	if err := a.Stop(); err != nil {
		t.Error(err)
	}
	untouched("without /dev/net/tun, stopped")
}

// pingOnce sends one echo request and waits a moment.
func pingOnce(ctx context.Context, from, to *lab.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err := from.Ping(ctx, to.IP, lab.PingOptions{})
	return err
}

// TestRavenAndNetstack: without a TUN an agent keeps out of Raven's way too.
func TestRavenAndNetstack(t *testing.T) {
	f := prepareFaults(t, lab.Options{})
	addIPTables(t, f.edge().Nodes[0])
	addRaven(t, f.edge().Nodes[0])
	a := f.edge().Agents[0]
	before := hostState(t, a.Host)
	a.SetArgs("--datapath", "netstack")
	wantRefusal(t, a, 1, "a Raven agent's devices or rules are on this host", "raven0")
	if diff := cmp.Diff(before, hostState(t, a.Host)); diff != "" {
		t.Error(diff)
	}
}
