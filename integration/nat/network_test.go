//go:build linux

package nat_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"corax/integration/lab"
)

const (
	port     = 7000 // of the server on every pod
	bulkPort = 7001
	tunnel   = 4500 // UDP
	fallback = 10280
)

// stunServer is on the host that all packets of the WAN pass.
var stunServer = netip.MustParseAddrPort("203.0.113.1:3478")

// network is a lab of sites with running agents.
type network struct {
	*lab.Topology
	t *testing.T
}

// start builds the sites, starts the agents, and waits until each edge has a
// path to every hub and knows its NAT, as it has all the time when nothing else
// happens.
func start(t *testing.T, opt lab.InternetOptions) *network {
	t.Helper()
	n := prepare(t, opt)
	n.run()
	return n
}

// prepare builds the sites and their Gateway objects, and starts no agent.
func prepare(t *testing.T, opt lab.InternetOptions) *network {
	t.Helper()
	n := &network{Topology: lab.Internet(lab.ForTest(t), opt), t: t}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	// One hub alone cannot show whether a mapping depends on the destination.
	if err := n.Internet.ServeSTUN(stunServer); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Prepare(ctx, "--stun-server", stunServer.String()); err != nil {
		t.Fatal(err)
	}
	for _, node := range n.Nodes() {
		p := node.Pods[0]
		if _, err := p.Serve(port, p.IP, p.IP6); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func (n *network) run() {
	n.t.Helper()
	for _, a := range n.Agents() {
		if err := a.Start(); err != nil {
			n.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), 60*time.Second)
	defer cancel()
	var hubs []string
	for _, d := range n.Domains {
		if d.Hub {
			hubs = append(hubs, d.Gateway().Name)
		}
	}
	for _, d := range n.Domains {
		if err := d.Agents[0].WaitReady(ctx); err != nil {
			n.t.Fatal(err)
		}
		if d.Hub {
			continue
		}
		err := d.Agents[0].WaitStatus(ctx, func(s *lab.Status) error {
			if err := lab.Reached(hubs...)(s); err != nil {
				return err
			}
			if p := s.Peer(hubs[0]); p.NAT.Local == "" {
				return fmt.Errorf("%s does not know its NAT yet", d.Name)
			}
			return nil
		})
		if err != nil {
			n.t.Fatal(err)
		}
	}
}

// domain returns a domain by name.
func (n *network) domain(name string) *lab.Domain {
	n.t.Helper()
	for _, d := range n.Domains {
		if d.Name == name {
			return d
		}
	}
	n.t.Fatalf("no domain %s", name)
	return nil
}

func (n *network) agent(domain string) *lab.Agent { return n.domain(domain).Agents[0] }
func (n *network) pod(domain string) *lab.Pod     { return n.domain(domain).Gateway().Pods[0] }

// at is the server on the pod of a domain.
func (n *network) at(domain string) netip.AddrPort {
	return netip.AddrPortFrom(n.pod(domain).IP, port)
}

// peer returns what one domain's agent says of the other's.
func (n *network) peer(from, to string) *lab.StatusPeer {
	n.t.Helper()
	p := n.status(from).Peer(n.domain(to).Gateway().Name)
	if p == nil {
		n.t.Fatalf("%s has no peer %s", from, to)
	}
	return p
}

func (n *network) status(domain string) *lab.Status {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 5*time.Second)
	defer cancel()
	s, err := n.agent(domain).Status(ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	return s
}

// awaitPath waits until both ends have a path to each other of one of the kinds.
func (n *network) awaitPath(within time.Duration, a, b string, kinds ...string) error {
	ctx, cancel := context.WithTimeout(n.t.Context(), within)
	defer cancel()
	if err := n.agent(a).WaitStatus(ctx, lab.OnPath(n.domain(b).Gateway().Name, kinds...)); err != nil {
		return err
	}
	return n.agent(b).WaitStatus(ctx, lab.OnPath(n.domain(a).Gateway().Name, kinds...))
}

// flow starts to echo blocks between the pods of two domains, until the test
// ends. Its first packet may be the first that the peers exchange.
func (n *network) flow(from, to string) *lab.Flow {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 20*time.Second)
	defer cancel()
	f, err := n.pod(from).StartFlow(ctx, n.at(to))
	if err != nil {
		n.t.Fatalf("first packet from %s to %s: %v", from, to, err)
	}
	n.t.Cleanup(func() { _, _ = f.Stop() })
	if err := f.WaitMove(ctx); err != nil {
		n.t.Fatalf("from %s to %s: %v", from, to, err)
	}
	return f
}

// moves waits for so many blocks of a flow.
func moves(ctx context.Context, f *lab.Flow, blocks int) error {
	for range blocks {
		if err := f.WaitMove(ctx); err != nil {
			return err
		}
	}
	return nil
}

// pause lets time pass in which nothing should happen.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}
