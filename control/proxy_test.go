package control_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"corax/control"
	"corax/control/api/v1beta1"
)

// TestProxyGolden is TestGolden for proxy mode: testdata/proxy/*.txtar, with the
// peers and routes that it needs.
func TestProxyGolden(t *testing.T) {
	paths, err := filepath.Glob("testdata/proxy/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) { proxyGolden(t, path) })
	}
}

func proxyGolden(t *testing.T, path string) {
	a, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	names := newKeyNames()
	s := snapshotOf(a, names)
	out := &txtar.Archive{Comment: a.Comment}
	want := map[string]string{}
	for _, f := range a.Files {
		if node, ok := strings.CutPrefix(f.Name, "want/"); ok {
			want[node] = string(f.Data)
		} else {
			out.Files = append(out.Files, f)
		}
	}
	for _, f := range slices.Clone(out.Files) {
		node, ok := strings.CutPrefix(f.Name, "local/")
		if !ok {
			continue
		}
		l, s := parseLocal(t, node, string(f.Data), s, names)
		got := renderProxy(control.PlanProxy(s, l), control.Plan(s, l), names)
		out.Files = append(out.Files, txtar.File{Name: "want/" + node, Data: []byte(got)})
		if diff := cmp.Diff(want[node], got); diff != "" && !*update {
			t.Errorf("proxy plan of %s (-want +got):\n%s", node, diff)
		}
	}
	if *update {
		if err := os.WriteFile(path, txtar.Format(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func renderProxy(p control.Proxy, d control.Desired, names *keyNames) string {
	b := new(strings.Builder)
	fmt.Fprintf(b, "front=%t edge=%t\n", p.Front, p.Edge)
	for _, peer := range d.Config.Peers {
		renderPeer(b, peer)
	}
	for _, r := range d.Config.Routes {
		fmt.Fprintf(b, "route %s %s\n", r.Prefix, r.Via)
	}
	for _, n := range p.Nodes {
		fmt.Fprintf(b, "node %s/%s %s own=%t via=%s ports=%s http=%s https=%s\n", n.Gateway, n.Name, n.IP, n.Own, addrs(n.Via), ports(n.Ports), ports(n.HTTP), ports(n.HTTPS))
	}
	if p.Edge {
		fmt.Fprintf(b, "callers %s ports=%s\n", addrs(p.Callers), ports(p.Ports))
	}
	if p.Front {
		fmt.Fprintf(b, "map=%v\n", p.PortMap)
	}
	for _, x := range p.Problems {
		fmt.Fprintf(b, "problem %s\n", x)
	}
	return names.shorten(b.String())
}

func addrs(as []netip.Addr) string {
	var s []string
	for _, a := range as {
		s = append(s, a.String())
	}
	return "[" + strings.Join(s, ",") + "]"
}

func ports(ps []uint16) string {
	var s []string
	for _, p := range ps {
		s = append(s, strconv.Itoa(int(p)))
	}
	return strings.Join(s, ",")
}

// TestProxyNodesAreSpread checks the order in which gateway nodes are tried: a
// gateway node serves itself, the others are shared, and one that goes moves only
// what it served.
func TestProxyNodesAreSpread(t *testing.T) {
	names := newKeyNames()
	gateway := func(actives ...string) control.Snapshot {
		gw := v1beta1.Gateway{Metadata: v1beta1.ObjectMeta{Name: "edge"}}
		for _, n := range actives {
			gw.Spec.Endpoints = append(gw.Spec.Endpoints, v1beta1.Endpoint{
				NodeName: n, Type: v1beta1.TypeProxy, UnderNAT: true,
				Config: map[string]string{v1beta1.ConfigPublicKey: names.key(n).String()},
			})
		}
		gw.Spec.ProxyConfig = &v1beta1.ProxyConfiguration{Replicas: len(actives)}
		for i := range 60 {
			gw.Status.Nodes = append(gw.Status.Nodes, v1beta1.NodeInfo{NodeName: fmt.Sprintf("n%02d", i), PrivateIP: fmt.Sprintf("10.0.0.%d", i+1)})
		}
		return control.Snapshot{Gateways: []v1beta1.Gateway{gw}, EnableProxy: true}
	}
	first := func(s control.Snapshot) map[string]netip.Addr {
		out := map[string]netip.Addr{}
		for _, n := range control.PlanProxy(s, control.Local{Node: "c1", PublicKey: names.key("c1")}).Nodes {
			out[n.Name] = n.Via[0]
		}
		return out
	}
	three := first(gateway("n00", "n01", "n02"))
	count := map[netip.Addr]int{}
	for _, via := range three {
		count[via]++
	}
	for _, n := range []string{"n00", "n01", "n02"} {
		if three[n] != names.key(n).Overlay() {
			t.Errorf("gateway node %s is asked for at %s first, not at itself", n, three[n])
		}
		if c := count[names.key(n).Overlay()]; c < 8 {
			t.Errorf("gateway node %s is first for %d of 60 nodes", n, c)
		}
	}
	two := first(gateway("n00", "n02"))
	gone := names.key("n01").Overlay()
	for n, via := range three {
		if via != gone && two[n] != via {
			t.Errorf("node %s moved from %s to %s although that gateway node stays", n, via, two[n])
		}
	}
}
