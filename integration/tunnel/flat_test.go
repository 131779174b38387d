//go:build linux

package tunnel_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"debug/buildinfo"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"corax/integration/lab"
)

const (
	flatWarmUp  = 30  // changes before the first look: pools and caches fill
	flatChanges = 200 // from the first look to the last
	flatLooks   = 3   // rounds that one look takes, to see the least of each figure

	// flatDiscovery is how many sockets, with a goroutine each, are open while the
	// lifetime of a NAT's mappings is measured, and for the stream to a hub.
	flatDiscovery = 4
	// flatHeap is how much more the agent may have in use after flatChanges, in
	// bytes: 10 KiB a change. Collections are rare here, and what they find differs
	// by 1 MiB from one to the next, over 1,300 changes as over 200. A peer that
	// is not let go shows in the goroutines too.
	flatHeap = 2 << 20
	// flatMemory is the same for what it has from the kernel, garbage included.
	flatMemory = 6 << 20
)

// usage is what an agent holds.
type usage struct {
	goroutines, files int
	heap              int // in use after a garbage collection, in bytes
	memory            int // resident, in bytes
}

// least returns the lower of each figure.
func (u usage) least(o usage) usage {
	return usage{min(u.goroutines, o.goroutines), min(u.files, o.files), min(u.heap, o.heap), min(u.memory, o.memory)}
}

// TestFlat changes the Gateway objects 200 times, in every way that makes an
// agent open, close, add or forget something, and compares what the agents hold
// before and after.
func TestFlat(t *testing.T) {
	t.Parallel()
	f := newFlat(t)
	for f.changes < flatWarmUp {
		f.round()
		f.reopen()
	}
	before, start := f.look(), f.changes
	for f.changes < start+flatChanges {
		f.round()
		f.reopen()
	}
	after := f.look()
	for i, a := range f.topo.Agents() {
		b, n := before[i], after[i]
		t.Logf("%s after %d changes: %+v, before %+v", a.Host.Name, f.changes-start, n, b)
		if n.goroutines > b.goroutines+flatDiscovery {
			t.Errorf("%s: %d goroutines, before %d", a.Host.Name, n.goroutines, b.goroutines)
		}
		if n.files > b.files+flatDiscovery {
			t.Errorf("%s: %d open files, before %d", a.Host.Name, n.files, b.files)
		}
		if n.heap > b.heap+flatHeap {
			t.Errorf("%s: %d KiB of the heap in use, before %d", a.Host.Name, n.heap>>10, b.heap>>10)
		}
		if n.memory > b.memory+flatMemory && !raced(t) {
			t.Errorf("%s: %d KiB of memory, before %d", a.Host.Name, n.memory>>10, b.memory>>10)
		}
	}
}

// flat is a hub and an edge, and two more domains of which only the objects
// exist.
type flat struct {
	t       *testing.T
	topo    *lab.Topology
	keys    map[string]string
	changes int // of objects
}

func newFlat(t *testing.T) *flat {
	f := &flat{t: t, topo: lab.Standard(lab.ForTest(t), lab.Options{Edges: 1, Nodes: 1, NoCapture: true})}
	serveStreams(t, f.topo)
	startAgents(t, f.topo)
	f.keys = map[string]string{}
	for _, a := range f.topo.Agents() {
		s, err := a.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		f.keys[a.Host.Name] = s.PublicKey
	}
	return f
}

// sites are the other two domains.
func (f *flat) sites() [2]lab.Gateway {
	var sites [2]lab.Gateway
	for i, name := range []string{"site-a", "site-b"} {
		subnet := func(n int) []netip.Prefix {
			return []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(200 + 10*i + n), 0}), 24)}
		}
		sites[i] = lab.Gateway{
			Name:      name,
			Endpoints: []lab.Endpoint{{Node: name + "-gw", UnderNAT: true, PublicKey: newPublicKey(f.t)}},
			Nodes: []lab.GatewayNode{
				{Node: name + "-gw", IP: netip.MustParseAddr("192.168.1.10"), Subnets: subnet(0)},
				{Node: name + "-1", IP: netip.MustParseAddr("192.168.1.11"), Subnets: subnet(1)},
			},
		}
	}
	return sites
}

// round lets two domains come, change in every way, and go.
func (f *flat) round() {
	f.t.Helper()
	sites := f.sites()
	f.both("they come", &sites, nil)
	f.both("their keys change", &sites, func(g *lab.Gateway) { g.Endpoints[0].PublicKey = newPublicKey(f.t) })
	f.both("they become hubs", &sites, func(g *lab.Gateway) {
		g.ExposeType = "PublicIP"
		g.Endpoints[0].PublicIP, g.Endpoints[0].UnderNAT = netip.MustParseAddr("203.0.113.99"), false
	})
	f.both("their ports change", &sites, func(g *lab.Gateway) { g.Endpoints[0].Port = 4510 })
	f.both("a subnet moves", &sites, func(g *lab.Gateway) {
		g.Nodes[0].Subnets = slices.Concat(g.Nodes[0].Subnets, g.Nodes[1].Subnets)
		g.Nodes[1].Subnets = nil
	})
	f.both("they get standbys", &sites, func(g *lab.Gateway) {
		standby := lab.Endpoint{Node: g.Nodes[1].Node, UnderNAT: true, PublicKey: newPublicKey(f.t)}
		g.Endpoints = append(g.Endpoints, standby)
	})
	f.change("they go", 2, func(dir string) error {
		return errors.Join(os.Remove(filepath.Join(dir, "site-a.yaml")), os.Remove(filepath.Join(dir, "site-b.yaml")))
	}, func(s *lab.Status) error {
		if i := slices.IndexFunc(s.Peers, func(p lab.StatusPeer) bool { return strings.HasPrefix(p.Gateway, "site") }); i >= 0 {
			return fmt.Errorf("%s is still a peer", s.Peers[i].Node)
		}
		return nil
	})
	edge := f.topo.Domains[1]
	f.change("a file is spoilt", 1, func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "edge-a.yaml"), []byte("spec: ["), 0o644)
	}, spoilt(true))
	f.change("it is mended", 1, f.topo.Object(edge, f.keys).Write, spoilt(false))
	reaches(f.t, edge.Gateway().Pods[0].Host, f.topo.Domains[0].Gateway().Pods[0].IP, streamPort)
}

// reopen makes the hub close its tunnel port and open it again.
func (f *flat) reopen() {
	f.t.Helper()
	cloud := f.topo.Domains[0]
	g := f.topo.Object(cloud, f.keys)
	g.Endpoints = nil
	f.change("the hub loses its office", 1, g.Write, func(s *lab.Status) error {
		if s.Node == "cloud-gw" {
			return hasRole("node")(s)
		}
		if s.Peer("cloud-gw") != nil {
			return errors.New("the hub is still a peer")
		}
		return nil
	})
	f.change("the hub has it again", 1, f.topo.Object(cloud, f.keys).Write, lab.Reached())
}

// both changes both domains.
func (f *flat) both(what string, sites *[2]lab.Gateway, do func(*lab.Gateway)) {
	f.t.Helper()
	for i := range sites {
		if do != nil {
			do(&sites[i])
		}
	}
	f.change(what, len(sites), func(dir string) error {
		return errors.Join(sites[0].Write(dir), sites[1].Write(dir))
	}, func(s *lab.Status) error {
		for i := range sites {
			if err := shows(s, &sites[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// shows reports what a status does not say of a domain.
func shows(s *lab.Status, g *lab.Gateway) error {
	for _, e := range g.Endpoints {
		p := s.Peer(e.Node)
		if p == nil || p.PublicKey != e.PublicKey {
			return fmt.Errorf("%s is %+v, want key %s", e.Node, p, e.PublicKey)
		}
		want := ""
		if e.PublicIP.IsValid() {
			want = netip.AddrPortFrom(e.PublicIP, uint16(cmp.Or(e.Port, 4500))).String()
		}
		if p.Path.Endpoint != want {
			return fmt.Errorf("%s is at %q, want %q", e.Node, p.Path.Endpoint, want)
		}
	}
	// The active endpoint carries the whole domain.
	if p := s.Peer(g.Endpoints[0].Node); len(p.Subnets) != 2 {
		return fmt.Errorf("%s carries %v, want two subnets", p.Node, p.Subnets)
	}
	return nil
}

// spoilt reports whether a status names the bad file, or no longer does.
func spoilt(want bool) func(*lab.Status) error {
	return func(s *lab.Status) error {
		got := slices.ContainsFunc(s.Problems, func(p string) bool { return strings.Contains(p, "edge-a.yaml") })
		if got != want {
			return fmt.Errorf("edge-a.yaml named: %t, want %t: %q", got, want, s.Problems)
		}
		return nil
	}
}

// change changes n objects and waits until both agents have applied that.
func (f *flat) change(what string, n int, do func(dir string) error, seen func(*lab.Status) error) {
	f.t.Helper()
	if err := do(f.topo.Gateways); err != nil {
		f.t.Fatalf("%s: %v", what, err)
	}
	ctx, cancel := context.WithTimeout(f.t.Context(), 30*time.Second)
	defer cancel()
	for _, a := range f.topo.Agents() {
		if err := a.WaitStatus(ctx, seen); err != nil {
			f.t.Fatalf("%s: %v", what, err)
		}
	}
	f.changes += n
}

// look returns the least that each agent holds at some moments of some rounds.
func (f *flat) look() []usage {
	f.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var all []usage
	for range flatLooks {
		f.round()
		for i, a := range f.topo.Agents() {
			for range 5 {
				<-tick.C
				now, err := agentUsage(f.t.Context(), a)
				if err != nil {
					f.t.Fatal(err)
				}
				if i == len(all) {
					all = append(all, now)
				}
				all[i] = all[i].least(now)
			}
		}
	}
	return all
}

// agentGOGC is the garbage collector's percentage that agents set themselves.
const agentGOGC = 50

func agentUsage(ctx context.Context, a *lab.Agent) (usage, error) {
	m, err := a.Metrics(ctx)
	if err != nil {
		return usage{}, err
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", a.Process().PID()))
	if err != nil {
		return usage{}, err
	}
	u := usage{
		goroutines: int(m["go_goroutines"]),
		files:      len(files),
		heap:       int(m["go_memstats_next_gc_bytes"]) * 100 / (100 + agentGOGC),
		memory:     int(m["process_resident_memory_bytes"]),
	}
	if u.goroutines == 0 || u.heap == 0 || u.memory == 0 {
		return u, fmt.Errorf("the agent on %s does not say what it holds", a.Host.Name)
	}
	return u, nil
}

// raced reports whether the agents are built with the race detector, which holds
// several times their memory.
func raced(t *testing.T) bool {
	t.Helper()
	path, err := lab.Corax()
	if err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
}

// newPublicKey returns a key that nobody has.
func newPublicKey(t *testing.T) string {
	t.Helper()
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(b)
}
