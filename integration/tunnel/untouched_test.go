//go:build linux

package tunnel_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"corax/integration/lab"
)

// hostState is all that an agent might change on a host: the lab's snapshot,
// every network setting, queueing disciplines, and sockets and files in /run.
func hostState(t *testing.T, h *lab.Host) []string {
	t.Helper()
	lines, err := h.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	err = h.Do(func() error {
		settings, err := treeLines("setting", "/proc/sys/net", func(path string) (string, bool) {
			if volatileSetting(path) {
				return "", false
			}
			b, err := os.ReadFile(path)
			return strings.TrimSpace(string(b)), err == nil // some can only be written
		})
		if err != nil {
			return err
		}
		files, err := treeLines("file", "/run", func(string) (string, bool) { return "", true })
		if err != nil {
			return err
		}
		lines = append(append(lines, settings...), files...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	links, err := h.Netlink().LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		qdiscs, err := h.Netlink().QdiscList(l)
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range qdiscs {
			lines = append(lines, fmt.Sprintf("qdisc %s type %s parent %x", l.Attrs().Name, q.Type(), q.Attrs().Parent))
		}
	}
	return lines
}

// volatileSetting reports what changes by itself, or with every link.
func volatileSetting(path string) bool {
	for _, s := range []string{"nf_conntrack_count", "/conf/corax0/", "/neigh/corax0/"} {
		if strings.Contains(path, s) {
			return true
		}
	}
	return false
}

// treeLines lists the files below a directory and what text says of each.
func treeLines(kind, dir string, text func(string) (string, bool)) ([]string, error) {
	var lines []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		if s, ok := text(path); ok {
			lines = append(lines, fmt.Sprintf("%s %s %s", kind, path, s))
		}
		return nil
	})
	return lines, err
}

// difference returns the lines that only one of two states has. Lines that
// stand more than once count as often.
func difference(before, after []string) (gone, added []string) {
	n := make(map[string]int)
	for _, l := range before {
		n[l]++
	}
	for _, l := range after {
		if n[l]--; n[l] < 0 {
			added = append(added, l)
		}
	}
	for _, l := range before {
		if n[l] > 0 {
			n[l]--
			gone = append(gone, l)
		}
	}
	return gone, added
}

// ours are the lines that a running agent adds to its host, as patterns, and
// how often each stands there.
func ours(topo *lab.Topology, n *lab.Node, forwardDrop bool) map[string]int {
	want := map[string]int{
		`link corax0 type tuntap mtu 1408 mac  master "" up true promisc false`:                            1,
		`qdisc corax0 type \w+ parent ffffffff`:                                                            1,
		`rule family (2|10) priority 100 from <nil> to <nil> iif "" oif "" mark 0 table 9027 invert false`: 2,

		`sysctl net/ipv4/conf/corax0/rp_filter 2`:                            1,
		`sysctl net/ipv4/conf/corax0/forwarding 1`:                           1,
		`sysctl net/ipv[46]/conf/corax0/\w+ \d+`:                             4,
		`file /run/wireguard/corax0.sock `:                                   0,
		`nft table 1 corax`:                                                  1,
		`nft 1 corax set pods[46]`:                                           2,
		`nft 1 corax set pods[46] element .*`:                                4,
		`nft 1 corax chain postrouting type nat hook 4 priority 90 policy 1`: 1,
		`nft 1 corax chain postrouting rule .* comment "corax"`:              4,
	}
	for _, d := range topo.Domains {
		if slices.Contains(d.Nodes, n) {
			if d.Gateway() == n {
				want[`file /run/wireguard/corax0.sock `] = 1
			}
			continue
		}
		for _, other := range d.Nodes {
			for _, s := range other.Subnets {
				for _, line := range routesTo(s, n) {
					want[regexp.QuoteMeta(line)] = 1
				}
			}
		}
	}
	if forwardDrop {
		for _, family := range []string{"2", "10"} {
			want[`nft `+family+` filter chain FORWARD rule .* comment "corax"`] = 2
		}
	}
	return want
}

// routesTo returns the two routes to a subnet of another domain.
func routesTo(s netip.Prefix, n *lab.Node) []string {
	for _, own := range n.Subnets {
		src := own.Masked().Addr().Next()
		switch {
		case src.Is4() != s.Addr().Is4():
		case src.Is4():
			return []string{
				fmt.Sprintf(`route %s via <nil> dev "corax0" src %s table 9027 type 1 metric 0 mtu 1360 scope 253`, s, src),
				fmt.Sprintf(`route %s via <nil> dev "" src <nil> table 9027 type 7 metric 4278198272 mtu 0 scope 0`, s),
			}
		default:
			return []string{
				fmt.Sprintf(`route %s via <nil> dev "corax0" src %s table 9027 type 1 metric 1024 mtu 1360 scope 0`, s, src),
				fmt.Sprintf(`route %s via <nil> dev "lo" src <nil> table 9027 type 7 metric 4278198272 mtu 0 scope 0`, s),
			}
		}
	}
	return nil
}

// wantOurs compares a state with the one before the agent: nothing is gone, and
// what is new is exactly ours.
func wantOurs(t *testing.T, when string, before, now []string, want map[string]int) {
	t.Helper()
	gone, added := difference(before, now)
	for _, l := range gone {
		t.Errorf("%s: gone: %s", when, l)
	}
	// The longer pattern says more.
	patterns := slices.SortedFunc(mapKeys(want), func(a, b string) int { return len(b) - len(a) })
	count := make(map[string]int)
	for _, l := range added {
		i := slices.IndexFunc(patterns, func(p string) bool { return regexp.MustCompile("^" + p + "$").MatchString(l) })
		if i < 0 {
			t.Errorf("%s: new, and not among what an agent may add: %s", when, l)
			continue
		}
		count[patterns[i]]++
	}
	for _, p := range patterns {
		if count[p] != want[p] {
			t.Errorf("%s: %d lines match %s, want %d", when, count[p], p, want[p])
		}
	}
}

func mapKeys(m map[string]int) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// TestHostUntouched: an agent adds to its host what is named here and nothing
// else, leaves all of that in place when it crashes, takes it over when it
// starts again, and takes it along when it stops; among the rules of other
// programs, some of which look like its own.
func TestHostUntouched(t *testing.T) {
	for _, drop := range []bool{false, true} {
		name := "FORWARD accepts"
		if drop {
			name = "FORWARD drops"
		}
		t.Run(name, func(t *testing.T) {
			topo := lab.Standard(lab.ForTest(t), lab.Options{
				Edges: 1,
				Node: func(c *lab.NodeConfig) {
					c.ForwardDrop, c.Masquerade, c.RPFilter = drop, lab.MasqLeavingNode, 1
				},
			})
			for _, n := range topo.Nodes() {
				addForeign(t, n)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
			defer cancel()
			if _, err := topo.Prepare(ctx); err != nil {
				t.Fatal(err)
			}
			hosts := newHosts(t, topo, drop)

			hosts.each(t, (*lab.Agent).Start)
			hosts.ready(ctx, t)
			running := hosts.check(t, "running")
			hosts.each(t, (*lab.Agent).Kill)
			hosts.same(t, "killed", running)
			hosts.each(t, (*lab.Agent).Start)
			hosts.ready(ctx, t)
			hosts.same(t, "started again", running)
			hosts.each(t, (*lab.Agent).Stop)
			hosts.same(t, "stopped", hosts.before)

			// Stopped while it starts: as soon as there is something to undo.
			hosts.each(t, (*lab.Agent).Start)
			for _, n := range topo.Nodes() {
				waitLink(ctx, t, n.Host, "corax0")
			}
			hosts.each(t, (*lab.Agent).Stop)
			hosts.same(t, "stopped while starting", hosts.before)

			// Killed, and stopped only after the next start.
			hosts.each(t, (*lab.Agent).Start)
			hosts.ready(ctx, t)
			hosts.each(t, (*lab.Agent).Kill)
			hosts.each(t, (*lab.Agent).Start)
			hosts.ready(ctx, t)
			hosts.each(t, (*lab.Agent).Stop)
			hosts.same(t, "killed, started and stopped", hosts.before)
		})
	}
}

// hosts are the nodes of a topology and their states before the agents.
type hosts struct {
	topo   *lab.Topology
	drop   bool
	before map[string][]string
}

func newHosts(t *testing.T, topo *lab.Topology, drop bool) *hosts {
	h := &hosts{topo: topo, drop: drop}
	h.before = h.states(t)
	for name, s := range h.states(t) {
		if diff := cmp.Diff(h.before[name], s); diff != "" {
			t.Fatalf("%s changes by itself:\n%s", name, diff)
		}
	}
	return h
}

func (h *hosts) states(t *testing.T) map[string][]string {
	t.Helper()
	m := make(map[string][]string)
	for _, n := range h.topo.Nodes() {
		m[n.Name] = hostState(t, n.Host)
	}
	return m
}

func (h *hosts) each(t *testing.T, f func(*lab.Agent) error) {
	t.Helper()
	for _, a := range h.topo.Agents() {
		if err := f(a); err != nil {
			t.Error(err)
		}
	}
}

// ready waits until traffic passes everywhere, and with it every agent has
// applied its plan.
func (h *hosts) ready(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, a := range h.topo.Agents() {
		if err := a.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for _, edge := range h.topo.Domains[1].Nodes {
		for _, cloud := range h.topo.Domains[0].Nodes {
			for _, to := range []netip.Addr{cloud.Pods[0].IP, cloud.Pods[0].IP6} {
				if _, err := edge.Pods[0].PingUntil(ctx, to, lab.PingOptions{}); err != nil {
					t.Fatal(err)
				}
				if _, err := edge.PingUntil(ctx, to, lab.PingOptions{}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// check wants what a running agent adds, on every node.
func (h *hosts) check(t *testing.T, when string) map[string][]string {
	t.Helper()
	states := h.states(t)
	for _, n := range h.topo.Nodes() {
		wantOurs(t, n.Name+" "+when, h.before[n.Name], states[n.Name], ours(h.topo, n, h.drop))
		if h.drop {
			wantAtHead(t, n.Name+" "+when, states[n.Name])
		}
	}
	return states
}

// wantAtHead wants our two rules before all others in the chains that drop.
func wantAtHead(t *testing.T, when string, state []string) {
	t.Helper()
	for _, family := range []string{"2", "10"} {
		i := slices.IndexFunc(state, func(l string) bool {
			return strings.HasPrefix(l, "nft "+family+" filter chain FORWARD type filter")
		})
		if i < 0 || i+2 >= len(state) {
			t.Errorf("%s: no FORWARD chain of family %s", when, family)
			continue
		}
		for _, l := range state[i+1 : i+3] {
			if !strings.HasSuffix(l, `comment "corax"`) || !strings.Contains(l, "Kind:accept") && !strings.Contains(l, "verdict{Kind:1") {
				t.Errorf("%s: at the head of FORWARD: %s", when, l)
			}
		}
	}
}

func (h *hosts) same(t *testing.T, when string, want map[string][]string) {
	t.Helper()
	for name, s := range h.states(t) {
		gone, added := difference(want[name], s)
		for _, l := range gone {
			t.Errorf("%s, %s: gone: %s", name, when, l)
		}
		for _, l := range added {
			t.Errorf("%s, %s: new: %s", name, when, l)
		}
		if t.Failed() {
			continue
		}
		if diff := cmp.Diff(want[name], s); diff != "" {
			t.Errorf("%s, %s: another order:\n%s", name, when, diff)
		}
	}
}

// waitLink waits until a link exists.
func waitLink(ctx context.Context, t *testing.T, h *lab.Host, name string) {
	t.Helper()
	for {
		if _, err := h.Netlink().LinkByName(name); err == nil {
			return
		} else if !errors.As(err, &netlink.LinkNotFoundError{}) {
			t.Fatal(err)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s gets no link %s", h.Name, name)
		case <-time.After(time.Millisecond):
		}
	}
}
