//go:build linux

package tunnel_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"corax/integration/lab"
)

const (
	scaleShort, scaleLong = 50, 200 // domains
	scaleNodes            = 5       // in each
	// scaleMemory is the most that an agent may hold, in bytes: what it may
	// under load.
	scaleMemory = 150e6
)

// scaled is a network with many more domains, of which only the objects exist.
type scaled struct {
	*changing
	extra []lab.Gateway
}

// TestSoakScale adds 200 domains of five nodes each, in the short form 50, to two
// that work: every agent knows them, its memory stays within bounds, and the
// traffic that is there does not notice, neither when they come nor when they
// go.
func TestSoakScale(t *testing.T) {
	domains := scaleShort
	if soaking() {
		domains = scaleLong
	}
	s := newScaled(t, domains)
	bare := s.routes(t)
	s.report(t, "before")

	unnoticed := s.unnoticed(t, s.toA, "edge-a-gw")
	began := time.Now()
	for _, g := range s.extra {
		s.put(t, g)
	}
	s.known(t, func(p *lab.Status) error { return s.knows(p, s.extra) })
	t.Logf("%d domains are known after %v", domains, time.Since(began).Round(time.Millisecond))
	for node, n := range s.routes(t) {
		// Two routes for each subnet: to the TUN, and unreachable.
		if want := bare[node] + domains*scaleNodes*2*2; n != want {
			t.Errorf("%s has %d routes in table 9027, want %d", node, n, want)
		}
	}
	s.report(t, "with all domains")

	one := &s.extra[domains/2]
	one.Endpoints[0].PublicKey = newPublicKey(t)
	began = time.Now()
	s.put(t, *one)
	s.known(t, func(p *lab.Status) error { return s.knows(p, s.extra[domains/2:domains/2+1]) })
	t.Logf("a changed key is known after %v", time.Since(began).Round(time.Millisecond))

	for _, g := range s.extra {
		if err := os.Remove(filepath.Join(s.topo.Gateways, g.Name+".yaml")); err != nil {
			t.Fatal(err)
		}
	}
	s.known(t, func(p *lab.Status) error {
		for _, peer := range p.Peers {
			if strings.HasPrefix(peer.Gateway, "scale") {
				return fmt.Errorf("%s is still a peer", peer.Node)
			}
		}
		return nil
	})
	for node, n := range s.routes(t) {
		if n != bare[node] {
			t.Errorf("%s has %d routes in table 9027 when all have gone, before %d", node, n, bare[node])
		}
	}
	s.report(t, "when all have gone")
	unnoticed(t)
}

func newScaled(t *testing.T, domains int) *scaled {
	s := &scaled{changing: &changing{t: t, topo: lab.Standard(lab.ForTest(t), lab.Options{Edges: 1, NoCapture: true})}}
	serveStreams(t, s.topo)
	startAgents(t, s.topo)
	s.toA = []*stream{
		startStream(t, s.topo, "cloud-1", "edge-a-1", false),
		startStream(t, s.topo, "edge-a-gw", "cloud-gw", true),
	}
	s.control = startControl(t, s.topo)
	for i := range domains {
		s.extra = append(s.extra, scaleDomain(t, i))
	}
	return s
}

// scaleDomain is domain i: every tenth is a hub.
func scaleDomain(t *testing.T, i int) lab.Gateway {
	name := fmt.Sprintf("scale-%03d", i)
	g := lab.Gateway{Name: name, Endpoints: []lab.Endpoint{{Node: name + "-0", UnderNAT: true, PublicKey: newPublicKey(t)}}}
	if i%10 == 0 {
		g.ExposeType = "PublicIP"
		g.Endpoints[0].UnderNAT = false
		g.Endpoints[0].PublicIP = netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
	}
	for n := range scaleNodes {
		id := scaleNodes*i + n
		v6 := [16]byte{0xfd, 0, 0, 0x20, byte(id >> 8), byte(id)}
		g.Nodes = append(g.Nodes, lab.GatewayNode{
			Node: fmt.Sprintf("%s-%d", name, n),
			IP:   netip.AddrFrom4([4]byte{192, 168, 1, byte(10 + n)}),
			Subnets: []netip.Prefix{
				netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(1 + id/250), byte(id % 250), 0}), 24),
				netip.PrefixFrom(netip.AddrFrom16(v6), 64),
			},
		})
	}
	return g
}

func (s *scaled) put(t *testing.T, g lab.Gateway) {
	t.Helper()
	if err := g.Write(s.topo.Gateways); err != nil {
		t.Fatal(err)
	}
}

// known waits until ok accepts the status of every gateway node, and the plain
// nodes have as many routes as they.
func (s *scaled) known(t *testing.T, ok func(*lab.Status) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for _, d := range s.topo.Domains {
		if err := d.Agents[0].WaitStatus(ctx, ok); err != nil {
			t.Fatal(err)
		}
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		n := s.routes(t)
		if n["cloud-gw"] == n["cloud-1"] && n["edge-a-gw"] == n["edge-a-1"] {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the nodes of a domain have different numbers of routes: %v", n)
		case <-tick.C:
		}
	}
}

// knows reports what the status of a gateway node lacks.
func (s *scaled) knows(status *lab.Status, domains []lab.Gateway) error {
	var errs []error
	for _, g := range domains {
		p := status.Peer(g.Endpoints[0].Node)
		if p == nil || p.PublicKey != g.Endpoints[0].PublicKey || len(p.Subnets) != 2*scaleNodes {
			errs = append(errs, fmt.Errorf("%s: %+v", g.Name, p))
		}
	}
	if len(errs) > 3 {
		errs = append(errs[:3], fmt.Errorf("and %d more", len(errs)-3))
	}
	return errors.Join(errs...)
}

// routes counts the routes in the agents' table, by node.
func (s *scaled) routes(t *testing.T) map[string]int {
	t.Helper()
	count := map[string]int{}
	for _, n := range s.topo.Nodes() {
		lines, err := n.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range lines {
			if strings.HasPrefix(line, "route ") && strings.Contains(line, " table 9027 ") {
				count[n.Name]++
			}
		}
	}
	return count
}

// report logs what each agent holds and how long it takes to answer, and fails
// the test when it holds too much.
func (s *scaled) report(t *testing.T, when string) {
	t.Helper()
	for _, a := range s.topo.Agents() {
		began := time.Now()
		if _, err := a.Command(t.Context(), "status"); err != nil {
			// Exit code 1: peers of which only the objects exist do not answer.
			if !strings.Contains(err.Error(), "exit status 1") {
				t.Error(err)
			}
		}
		took := time.Since(began)
		u, err := agentUsage(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s, %s: status in %v, %d goroutines, %d files, %.1f MB", a.Host.Name, when,
			took.Round(time.Millisecond), u.goroutines, u.files, float64(u.memory)/1e6)
		if float64(u.memory) > scaleMemory && !raced(t) {
			t.Errorf("%s holds %.1f MB %s, more than %.0f", a.Host.Name, float64(u.memory)/1e6, when, scaleMemory/1e6)
		}
	}
}
