//go:build linux

package tunnel_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"corax/integration/lab"
)

const (
	// moveWithin is how soon after the start of a killed agent every transfer
	// that it carries must move.
	moveWithin = 5 * time.Second
	// noticeWithin is the same when the agent has lost its memory of where its
	// peers are, so that they must notice by themselves. WireGuard alone takes
	// 15 seconds from the first packet without an answer.
	noticeWithin = 12 * time.Second
	// downFor is how long an agent stays dead: about what a supervisor waits.
	downFor = time.Second
)

// restartLab is the network of the tests of dead agents: a cloud and an edge of
// two nodes each, agents that are ready, streams both ways and a control stream.
func restartLab(t *testing.T) (topo *lab.Topology, streams []*stream, control *stream) {
	topo = lab.Standard(lab.ForTest(t), lab.Options{Edges: 1, NoCapture: true})
	serveStreams(t, topo)
	startAgents(t, topo)
	streams = []*stream{
		startStream(t, topo, "cloud-1", "edge-a-1", false),
		startStream(t, topo, "edge-a-1", "cloud-1", false),
		startStream(t, topo, "edge-a-1", "cloud-1", true),
	}
	if topo.Node("edge-a-gw").Detoured() {
		lab.LeftOut(t, "connections of that node's pods, which end with the agent, and what its pods send by themselves, which nobody holds back")
	} else {
		streams = append(streams,
			startStream(t, topo, "edge-a-gw", "cloud-gw", false),
			startStream(t, topo, "cloud-gw", "edge-a-gw", true))
	}
	return topo, streams, startControl(t, topo)
}

// TestKilledAgent kills agents with SIGKILL under load. While they are dead
// nothing that is for another domain leaves a host in the clear; when they are
// back, every transfer goes on.
func TestKilledAgent(t *testing.T) {
	topo, streams, control := restartLab(t)
	for _, c := range []struct {
		name    string
		victims []string
		harm    func(*testing.T, *lab.Topology, string) // done to each meanwhile
		within  time.Duration
	}{
		{"plain node", []string{"edge-a-1"}, nil, moveWithin},
		{"gateway node behind a NAT", []string{"edge-a-gw"}, nil, moveWithin},
		{"hub", []string{"cloud-gw"}, nil, moveWithin},
		{"two at once", []string{"cloud-gw", "edge-a-gw"}, nil, moveWithin},
		{"plain node, TUN deleted", []string{"edge-a-1"}, deleteTUN, moveWithin},
		{"gateway node behind a NAT, TUN deleted", []string{"edge-a-gw"}, deleteTUN, moveWithin},
		{"hub, TUN deleted", []string{"cloud-gw"}, deleteTUN, moveWithin},
		{"hub, memory lost", []string{"cloud-gw"}, loseMemory, noticeWithin},
	} {
		if strings.HasSuffix(c.name, "TUN deleted") && topo.Node(c.victims[0]).Detoured() {
			continue // it has none
		}
		t.Run(c.name, func(t *testing.T) {
			carried, others := split(streams, c.victims)
			flowing(t, append(streams, control))
			leaks := watchLeaks(t, topo)
			killAll(t, topo, c.victims)
			for _, v := range c.victims {
				if c.harm != nil {
					c.harm(t, topo, v)
				}
				knock(t, topo, v)
			}
			began := time.Now()
			for _, v := range c.victims {
				if err := topo.Agent(v).Start(); err != nil {
					t.Fatal(err)
				}
			}
			moveAgain(t, carried, began, c.within)
			steady(t, control, others)
			leaks.none(t)
		})
	}
}

// TestStoppedAgent ends agents with SIGTERM and starts them again. It takes
// everything off the host, so that packets go where the host alone sends them;
// transfers survive that too.
func TestStoppedAgent(t *testing.T) {
	topo, streams, control := restartLab(t)
	for _, victim := range []string{"edge-a-1", "edge-a-gw", "cloud-gw"} {
		t.Run(victim, func(t *testing.T) {
			carried, others := split(streams, []string{victim})
			flowing(t, append(streams, control))
			leaks := watchLeaks(t, topo)
			if err := topo.Agent(victim).Stop(); err != nil {
				t.Fatal(err)
			}
			knock(t, topo, victim)
			began := time.Now()
			if err := topo.Agent(victim).Start(); err != nil {
				t.Fatal(err)
			}
			moveAgain(t, carried, began, moveWithin)
			steady(t, control, others)
			// Nothing of ours was left: this also shows that watchLeaks sees.
			if leaks.count(victim) == 0 && !topo.Node(victim).Detoured() {
				t.Error("a stopped agent still kept packets back")
			}
		})
	}
}

// deleteTUN takes the TUN of a node away. Then its routes are gone, and the
// unreachable ones answer.
func deleteTUN(t *testing.T, topo *lab.Topology, node string) {
	t.Helper()
	n := topo.Node(node)
	n.DelLink("corax0")
	for _, to := range remotePods(topo, n) {
		for _, ip := range []netip.Addr{to.IP, to.IP6} {
			c, err := n.DialUDP(netip.AddrPortFrom(ip, streamPort))
			if err == nil {
				_ = c.Close()
			}
			if !errors.Is(err, unix.EHOSTUNREACH) {
				t.Errorf("from %s to %s without a TUN: %v, want %v", node, ip, err, unix.EHOSTUNREACH)
			}
		}
	}
}

// loseMemory deletes what an agent knows of where its peers are.
func loseMemory(t *testing.T, topo *lab.Topology, node string) {
	t.Helper()
	if err := os.Remove(filepath.Join(topo.Agent(node).StateDir(), "memory.json")); err != nil {
		t.Fatal(err)
	}
}

// split parts the streams that the agents of some nodes carry from the others.
func split(streams []*stream, nodes []string) (carried, others []*stream) {
	for _, s := range streams {
		if s.carriedBy(nodes...) {
			carried = append(carried, s)
		} else {
			others = append(others, s)
		}
	}
	return carried, others
}

// killAll kills the agents of some nodes at the same moment.
func killAll(t *testing.T, topo *lab.Topology, nodes []string) {
	t.Helper()
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() {
			if err := topo.Agent(n).Kill(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// knock sends new packets, for downFor, from a node whose agent is dead and from
// its pod to every pod of another domain. None may arrive.
func knock(t *testing.T, topo *lab.Topology, node string) {
	t.Helper()
	n := topo.Node(node)
	ctx, cancel := context.WithTimeout(t.Context(), downFor)
	defer cancel()
	if n.Detoured() { // nobody holds its packets back, nor those of its pods
		<-ctx.Done()
		return
	}
	var wg sync.WaitGroup
	arrived := func(from *lab.Host, to netip.Addr, what string, err error) {
		if err == nil {
			t.Errorf("%s of %s reaches %s although the agent on %s is dead", what, from.Name, to, node)
		}
	}
	for _, to := range remotePods(topo, n) {
		for _, from := range []*lab.Host{n.Host, n.Pods[0].Host} {
			for _, ip := range []netip.Addr{to.IP, to.IP6} {
				wg.Go(func() {
					_, err := from.PingUntil(ctx, ip, lab.PingOptions{})
					arrived(from, ip, "a ping", err)
				})
				wg.Go(func() {
					_, err := from.EchoUDP(ctx, netip.AddrPortFrom(ip, streamPort), 100)
					arrived(from, ip, "a datagram", err)
				})
			}
		}
	}
	wg.Wait()
}

func remotePods(topo *lab.Topology, n *lab.Node) []*lab.Pod {
	var pods []*lab.Pod
	for _, d := range topo.Domains {
		if d == domainOf(topo, n) {
			continue
		}
		for _, other := range d.Nodes {
			pods = append(pods, other.Pods...)
		}
	}
	return pods
}

// leaks are captures, by node, of what leaves it in the clear for the pods of
// another domain.
type leaks map[string]*lab.Capture

// watchLeaks watches the only links that lead out of the nodes.
func watchLeaks(t *testing.T, topo *lab.Topology) leaks {
	t.Helper()
	all := leaks{}
	for _, d := range topo.Domains {
		var remote []netip.Prefix
		for _, other := range topo.Domains {
			if other == d {
				continue
			}
			for _, n := range other.Nodes {
				remote = append(remote, n.Subnets...)
			}
		}
		for _, n := range d.Nodes {
			onlyLinks(t, n)
			c, err := n.Capture("eth0", func(f lab.Frame) bool {
				for _, p := range remote {
					if f.Outgoing && p.Contains(f.Dst) {
						return true
					}
				}
				return false
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			all[n.Name] = c
		}
	}
	return all
}

// onlyLinks makes sure that eth0 is the only way out of a node but its pods and
// its TUN.
func onlyLinks(t *testing.T, n *lab.Node) {
	t.Helper()
	links, err := n.Netlink().LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		switch name := l.Attrs().Name; {
		case name == "lo", name == "eth0", name == "corax0", name == lab.CNIBridge, strings.HasPrefix(name, "veth"):
		default:
			t.Errorf("%s has a link %s that nobody watches", n.Name, name)
		}
	}
}

func (l leaks) count(node string) int { return l[node].Count() }

// none fails the test when something leaked anywhere.
func (l leaks) none(t *testing.T) {
	t.Helper()
	for node, c := range l {
		if n := c.Count(); n > 0 {
			f := c.Frames()[0]
			t.Errorf("%d packets left %s in the clear, the first from %s to %s, protocol %d", n, node, f.Src, f.Dst, f.Protocol)
		}
		if n := c.Lost(); n > 0 {
			t.Errorf("the capture on %s lost %d frames", node, n)
		}
	}
}
