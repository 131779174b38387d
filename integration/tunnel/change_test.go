//go:build linux

package tunnel_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"corax/integration/lab"
)

// changeWithin bounds how long a change may take until traffic follows it. No
// contract names a bound; a second or two is usual.
const changeWithin = 15 * time.Second

// changing is a network whose Gateway objects change under load.
type changing struct {
	t    *testing.T // of the whole test
	topo *lab.Topology
	keys map[string]string // public keys by node
	toA  []*stream         // between the cloud and edge-a
	toB  []*stream         // between the cloud and edge-b

	control *stream
}

// TestLiveChange changes Gateway objects one after another. The traffic that a
// change is about follows it, and all other traffic does not notice.
func TestLiveChange(t *testing.T) {
	c := newChanging(t)
	t.Run("a node is added", c.addNode)
	t.Run("a subnet moves", c.moveSubnet)
	t.Run("a key changes", c.changeKey)
	t.Run("a standby is added", c.addStandby)
	t.Run("the active endpoint moves", c.moveEndpoint)
	t.Run("the hub moves", c.moveHub)
	t.Run("a domain goes and comes back", c.removeDomain)
}

// newChanging starts every agent but that of edge-a-1, which no object names yet.
func newChanging(t *testing.T) *changing {
	c := &changing{t: t, topo: lab.Standard(lab.ForTest(t), lab.Options{NoCapture: true})}
	serveStreams(t, c.topo)
	ctx := c.within(t)
	var err error
	if c.keys, err = c.topo.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	c.write(t, "edge-a", func(g *lab.Gateway) { g.Nodes = g.Nodes[:1] })
	var ready errgroup.Group
	for _, a := range c.topo.Agents() {
		if a.Host.Name == "edge-a-1" {
			continue
		}
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
		ready.Go(func() error { return a.WaitReady(ctx) })
	}
	if err := ready.Wait(); err != nil {
		t.Fatal(err)
	}
	c.toA = []*stream{
		startStream(t, c.topo, "cloud-1", "edge-a-gw", false),
		startStream(t, c.topo, "edge-a-gw", "cloud-gw", true),
	}
	c.toB = []*stream{
		startStream(t, c.topo, "cloud-1", "edge-b-1", true),
		startStream(t, c.topo, "edge-b-1", "cloud-gw", false),
	}
	c.control = startControl(t, c.topo)
	return c
}

func (c *changing) within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), changeWithin)
	t.Cleanup(cancel)
	return ctx
}

func (c *changing) all() []*stream { return slices.Concat(c.toA, c.toB) }

// write writes the object of a domain as the topology lays it out, but for what
// change does to it.
func (c *changing) write(t *testing.T, domain string, change func(*lab.Gateway)) {
	t.Helper()
	i := slices.IndexFunc(c.topo.Domains, func(d *lab.Domain) bool { return d.Name == domain })
	g := c.topo.Object(c.topo.Domains[i], c.keys)
	if change != nil {
		change(&g)
	}
	if err := g.Write(c.topo.Gateways); err != nil {
		t.Fatal(err)
	}
}

// status waits until the status of a node's agent is as wanted.
func (c *changing) status(t *testing.T, node string, ok func(*lab.Status) error) {
	t.Helper()
	if err := c.topo.Agent(node).WaitStatus(c.within(t), ok); err != nil {
		t.Fatal(err)
	}
}

// addNode adds a node to edge-a.
func (c *changing) addNode(t *testing.T) {
	unnoticed := c.unnoticed(t, c.all(), "edge-a-gw", "edge-b-gw")
	node, peer := c.topo.Node("edge-a-1"), c.topo.Node("cloud-1")
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := peer.Pods[0].Ping(short, node.Pods[0].IP, lab.PingOptions{}); err == nil {
		t.Fatal("the pod is reached before its node was added")
	}
	if err := c.topo.Agent("edge-a-1").Start(); err != nil {
		t.Fatal(err)
	}
	c.write(t, "edge-a", nil)
	reaches(t, peer.Pods[0].Host, node.Pods[0].IP, streamPort)
	reaches(t, peer.Host, node.Pods[0].IP6, streamPort)
	reaches(t, node.Pods[0].Host, peer.Pods[0].IP6, streamPort)
	reaches(t, node.Host, peer.Pods[0].IP, streamPort)
	unnoticed(t)
	c.toA = append(c.toA, startStream(c.t, c.topo, "edge-a-1", "cloud-1", true))
}

// moveSubnet moves a subnet within edge-a, and from there to edge-b.
func (c *changing) moveSubnet(t *testing.T) {
	unnoticed := c.unnoticed(t, c.all(), "edge-a-gw", "edge-b-gw")
	subnets := []netip.Prefix{netip.MustParsePrefix("10.244.77.0/24"), netip.MustParsePrefix("fd00:10:244:77::/64")}
	on := func(node string) func(*lab.Gateway) {
		return func(g *lab.Gateway) {
			for i := range g.Nodes {
				if g.Nodes[i].Node == node {
					g.Nodes[i].Subnets = slices.Concat(g.Nodes[i].Subnets, subnets)
				}
			}
		}
	}
	// Each place has a server on a port of its own, so that it is clear who
	// answers at the one address.
	port := uint16(streamPort)
	come := func(node string) *lab.Pod {
		port++
		pod := c.topo.Node(node).PodIn("moved", subnets...)
		if _, err := pod.Serve(port); err != nil {
			t.Fatal(err)
		}
		return pod
	}
	answers := func(pod *lab.Pod) {
		t.Helper()
		for _, client := range []string{"cloud-1", "cloud-gw"} {
			to := c.topo.Node(client).Pods[0]
			reaches(t, to.Host, pod.IP, port)
			reaches(t, to.Host, pod.IP6, port)
			reaches(t, pod.Host, to.IP, streamPort)
			reaches(t, pod.Host, to.IP6, streamPort)
		}
	}
	pod := come("edge-a-1")
	c.write(t, "edge-a", on("edge-a-1"))
	answers(pod)

	c.topo.Node("edge-a-1").LeavePods(subnets...)
	pod = come("edge-a-gw")
	c.write(t, "edge-a", on("edge-a-gw"))
	answers(pod)

	// Two domains have it for a while: the first one keeps it, and the other
	// is told.
	c.write(t, "edge-b", on("edge-b-1"))
	c.status(t, "cloud-gw", func(s *lab.Status) error {
		for _, p := range s.Problems {
			if strings.Contains(p, "10.244.77.0/24") && strings.Contains(p, "edge-b") {
				return nil
			}
		}
		return fmt.Errorf("no problem names the subnet: %v", s.Problems)
	})
	answers(pod)

	c.topo.Node("edge-a-gw").LeavePods(subnets...)
	pod = come("edge-b-1")
	c.write(t, "edge-a", nil)
	answers(pod)

	c.topo.Node("edge-b-1").LeavePods(subnets...)
	c.write(t, "edge-b", nil)
	c.status(t, "cloud-gw", func(s *lab.Status) error {
		if p := s.Peer("edge-b-gw"); p == nil || slices.Contains(p.Subnets, "10.244.77.0/24") {
			return fmt.Errorf("edge-b-gw: %+v", p)
		}
		return nil
	})
	unnoticed(t)
}

// changeKey gives edge-b-gw a new key pair.
func (c *changing) changeKey(t *testing.T) {
	unnoticed := c.unnoticed(t, c.toA, "edge-a-gw")
	a := c.topo.Agent("edge-b-gw")
	if err := a.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(a.StateDir()); err != nil {
		t.Fatal(err)
	}
	fresh, err := a.Key(c.within(t))
	if err != nil {
		t.Fatal(err)
	}
	if fresh == c.keys["edge-b-gw"] {
		t.Fatal("the new key is the old one")
	}
	c.keys["edge-b-gw"] = fresh
	c.write(t, "edge-b", nil)
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	c.status(t, "cloud-gw", func(s *lab.Status) error {
		p := s.Peer("edge-b-gw")
		if p == nil || p.PublicKey != fresh || p.LastHandshake.IsZero() {
			return fmt.Errorf("edge-b-gw: %+v", p)
		}
		return nil
	})
	moving(t, c.toB)
	unnoticed(t)
}

// standby makes node 1 of a domain an endpoint, too; active is which of the two
// carries the domain.
func (c *changing) standby(active string) func(*lab.Gateway) {
	return func(g *lab.Gateway) {
		second := g.Endpoints[0]
		second.Node = g.Nodes[1].Node
		second.PublicKey = c.keys[second.Node]
		if second.PublicIP.IsValid() {
			second.PublicIP = g.Nodes[1].IP
		}
		g.Endpoints = append(g.Endpoints, second)
		g.Active = []string{active}
	}
}

func hasRole(role string) func(*lab.Status) error {
	return func(s *lab.Status) error {
		if s.Role != role {
			return fmt.Errorf("the role of %s is %s, want %s", s.Node, s.Role, role)
		}
		return nil
	}
}

// addStandby lists edge-a-1 as endpoint of edge-a, without making it active.
func (c *changing) addStandby(t *testing.T) {
	unnoticed := c.unnoticed(t, c.all(), "edge-a-gw", "edge-b-gw")
	c.write(t, "edge-a", c.standby("edge-a-gw"))
	c.status(t, "edge-a-1", hasRole("standby"))
	c.status(t, "edge-a-1", lab.Reached("cloud-gw"))
	unnoticed(t)
}

// moveEndpoint makes the standby of edge-a active, and back.
func (c *changing) moveEndpoint(t *testing.T) {
	for _, way := range [][2]string{{"edge-a-1", "edge-a-gw"}, {"edge-a-gw", "edge-a-1"}} {
		unnoticed := c.unnoticed(t, c.toB, "edge-b-gw")
		c.write(t, "edge-a", c.standby(way[0]))
		c.status(t, way[0], hasRole("gateway"))
		c.status(t, way[1], hasRole("standby"))
		moving(t, c.toA)
		unnoticed(t)
	}
}

// moveHub makes cloud-1 the hub instead of cloud-gw. Every transfer is about it.
func (c *changing) moveHub(t *testing.T) {
	c.write(t, "cloud", c.standby("cloud-1"))
	c.status(t, "cloud-1", hasRole("gateway"))
	c.status(t, "cloud-gw", hasRole("standby"))
	for _, edge := range []string{"edge-a-gw", "edge-b-gw"} {
		c.status(t, edge, func(s *lab.Status) error {
			if p := s.Peer("cloud-1"); p == nil || len(p.Subnets) == 0 || p.LastHandshake.IsZero() {
				return fmt.Errorf("cloud-1: %+v", p)
			}
			return nil
		})
	}
	moving(t, c.all())
	for _, s := range c.all() {
		if _, err := s.Result(); err != nil {
			t.Errorf("stream from %s: %v", s.name, err)
		}
	}
}

// removeDomain takes the object of edge-b away for a moment.
func (c *changing) removeDomain(t *testing.T) {
	unnoticed := c.unnoticed(t, c.toA, "edge-a-gw")
	if err := os.Remove(filepath.Join(c.topo.Gateways, "edge-b.yaml")); err != nil {
		t.Fatal(err)
	}
	c.status(t, "cloud-1", func(s *lab.Status) error {
		if s.Peer("edge-b-gw") != nil {
			return fmt.Errorf("edge-b-gw is still there")
		}
		return nil
	})
	c.status(t, "edge-b-1", hasRole("none"))
	c.write(t, "edge-b", nil)
	moving(t, c.toB)
	unnoticed(t)
}

// unnoticed watches streams, and the WireGuard sessions of some edges with the
// cloud, that a change is not about. The function that it returns fails the test
// when one of them noticed.
func (c *changing) unnoticed(t *testing.T, streams []*stream, edges ...string) func(*testing.T) {
	t.Helper()
	flowing(t, append(slices.Clone(streams), c.control))
	before := c.sessions(t, edges)
	return func(t *testing.T) {
		t.Helper()
		moving(t, streams)
		steady(t, c.control, streams)
		for i, now := range c.sessions(t, edges) {
			old := before[i]
			// WireGuard makes a new session after two minutes by itself.
			if old.handshake != now.handshake && now.handshake.Sub(old.handshake) < 110*time.Second {
				t.Errorf("the session of %s, made at %v, was made anew at %v", edges[i], old.handshake, now.handshake)
			}
			if old.endpoint != now.endpoint {
				t.Errorf("the path of %s moved from %s to %s", edges[i], old.endpoint, now.endpoint)
			}
		}
	}
}

type session struct {
	handshake time.Time
	endpoint  string
}

// sessions reads the session of each edge's gateway node with the active one of
// the cloud.
func (c *changing) sessions(t *testing.T, edges []string) []session {
	t.Helper()
	var out []session
	for _, edge := range edges {
		s, err := c.topo.Agent(edge).Status(c.within(t))
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(s.Peers, func(p lab.StatusPeer) bool { return p.Gateway == "cloud" && len(p.Subnets) > 0 })
		if i < 0 || s.Peers[i].LastHandshake.IsZero() {
			t.Fatalf("%s has no session with the cloud: %+v", edge, s.Peers)
		}
		out = append(out, session{s.Peers[i].LastHandshake, s.Peers[i].Path.Endpoint})
	}
	return out
}

// reaches waits until a host can exchange bytes with the server at an address.
func reaches(t *testing.T, from *lab.Host, to netip.Addr, port uint16) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), changeWithin)
	defer cancel()
	for {
		try, cancel := context.WithTimeout(ctx, time.Second)
		_, err := from.EchoTCP(try, netip.AddrPortFrom(to, port), 1000)
		if err != nil {
			<-try.Done() // a refusal comes at once
		}
		cancel()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s does not reach %s, port %d, within %v: %v", from.Name, to, port, changeWithin, err)
		}
	}
}
