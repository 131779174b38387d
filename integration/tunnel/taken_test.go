//go:build linux

package tunnel_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"corax/integration/lab"
)

// TestTakenTunnelPort starts a gateway node whose tunnel port somebody has: it
// says so, is not ready, serves its own domain, and takes the port when it is
// free.
func TestTakenTunnelPort(t *testing.T) {
	f := prepareFaults(t, lab.Options{})
	gw := f.edge().Gateway()
	thief, err := gw.ListenUDP(netip.MustParseAddrPort("0.0.0.0:4500"))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range f.Agents() {
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	a := f.edge().Agents[0]
	f.await(t, a, 10*time.Second, lab.Troubled("wg: listen on UDP port 4500: ", "address already in use"))
	f.await(t, a, 10*time.Second, func(*lab.Status) error {
		err := a.Ready(ctx) // refused at first: it is opened beside everything else
		if err == nil {
			return errors.New("/readyz says that all is well")
		}
		if !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "the tunnel port is not open") {
			return fmt.Errorf("/readyz: %w", err)
		}
		return nil
	})
	if p := f.status(a).Peer("cloud-gw"); p == nil || p.Path.Kind != "none" || p.Path.Why != "the tunnel port is not open, see the problems" {
		t.Errorf("peer %+v", p)
	}
	// The plain node still has its gateway node.
	f.await(t, f.edge().Agents[1], 10*time.Second, pathKind(gw.Name, "vxlan"))
	if err := thief.Close(); err != nil {
		t.Fatal(err)
	}
	f.await(t, a, 15*time.Second, lab.Untroubled)
	f.ready(ctx)
	f.startFlow(ctx)
}

// pathKind makes a function for await: a peer has a path of this kind.
func pathKind(node, kind string) func(*lab.Status) error {
	return func(s *lab.Status) error {
		p := s.Peer(node)
		if p == nil || p.Path.Kind != kind {
			return fmt.Errorf("peer %s: %+v, want %s", node, p, kind)
		}
		return nil
	}
}

// TestTakenListeners starts an agent whose addresses for health and metrics
// somebody has: it says so, works, and serves them when they are free.
func TestTakenListeners(t *testing.T) {
	f := prepareFaults(t, lab.Options{})
	a := f.hub()
	at := netip.AddrPortFrom(f.cloud().Gateway().IP, 10283)
	metrics, err := a.Host.ListenTCP(at)
	if err != nil {
		t.Fatal(err)
	}
	health, err := a.Host.ListenTCP(netip.AddrPortFrom(at.Addr(), 10284))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range f.Agents() {
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	f.await(t, a, 10*time.Second, lab.Troubled(
		"metrics is not served: listen tcp "+at.String()+": bind: address already in use",
		"health is not served: listen tcp "))
	f.await(t, a, 10*time.Second, lab.Reached("edge-a-gw"))
	f.startFlow(ctx)
	for _, ln := range []net.Listener{metrics, health} {
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
	}
	f.await(t, a, 20*time.Second, lab.Untroubled)
	f.ready(ctx)
}

// TestRefusals: what keeps an agent from starting at all is one line that says
// what was attempted and why not, an exit code, and nothing left on the host.
func TestRefusals(t *testing.T) {
	l := lab.ForTest(t)
	ip := netip.MustParseAddr("192.0.2.1")
	newAgent := func(t *testing.T, name string) *lab.Agent {
		h := l.Host(name)
		h.AddAddr("lo", netip.PrefixFrom(ip, 32))
		a, err := h.NewAgent(lab.AgentConfig{NodeIP: ip, Gateways: l.Dir()})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for i, tt := range []struct {
		name    string
		prepare func(t *testing.T, a *lab.Agent) error
		args    []string
		code    int
		texts   []string
	}{
		{"the VXLAN port is taken", func(_ *testing.T, a *lab.Agent) error {
			_, err := a.Host.ListenUDP(netip.AddrPortFrom(ip, 4472))
			return err
		}, nil, 1, []string{"corax: agent: vxlan: listen", "192.0.2.1:4472", "address already in use"}},
		{
			"not an address of this node", nil,
			[]string{"--node-ip", "198.51.100.1"},
			1,
			[]string{"corax: agent: vxlan: listen", "198.51.100.1:4472", "cannot assign requested address"},
		},
		{"the socket's place is taken", func(_ *testing.T, a *lab.Agent) error {
			return os.WriteFile(a.Socket(), []byte("precious"), 0o600)
		}, nil, 1, []string{"corax: agent: local API: ", "agent.sock: exists and is no socket"}},
		{
			"the socket's directory cannot be made", nil,
			[]string{"--socket", "/proc/corax/agent.sock"},
			1,
			[]string{"corax: agent: local API: mkdir /proc/corax: "},
		},
		{"the key is open to others", func(t *testing.T, a *lab.Agent) error {
			if _, err := a.Key(t.Context()); err != nil {
				return err
			}
			return os.Chmod(a.StateDir()+"/private.key", 0o644)
		}, nil, 1, []string{"corax: agent: key: ", "private.key has mode 0644: group or others can access it"}},
		{"the state directory is open to others", func(_ *testing.T, a *lab.Agent) error {
			return os.Mkdir(a.StateDir(), 0o755)
		}, nil, 1, []string{"corax: agent: key: state directory: ", "has mode 0755"}},
		{"the device's name is taken", func(_ *testing.T, a *lab.Agent) error {
			return a.Host.Netlink().LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "corax0"}})
		}, []string{"--datapath", "tun"}, 1, []string{"corax: agent: ", "corax0", "the name is taken by a bridge device"}},
		{
			"no Gateway directory", nil,
			[]string{"--gateways", "/nonexistent"},
			1,
			[]string{"corax: agent: file: gateway directory: stat /nonexistent: no such file or directory"},
		},
		{"no such datapath", nil, []string{"--datapath", "kernel"}, 3, []string{"corax: agent: ", "--datapath"}},
		{"a namespace of nobody", nil, []string{"--datapath", "userns"}, 3, []string{"corax: agent: ", "--datapath userns needs --netns"}},
		{"two ports alike", nil, []string{"--tunnel-port", "4472"}, 3, []string{"--tunnel-port and --vxlan-port are both UDP 4472"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAgent(t, fmt.Sprintf("node-%d", i))
			if tt.prepare != nil {
				if err := tt.prepare(t, a); err != nil {
					t.Fatal(err)
				}
			}
			before := snapshot(t, a.Host)
			a.SetArgs(tt.args...)
			wantRefusal(t, a, tt.code, tt.texts...)
			sameHost(t, a.Host, before)
		})
	}
}

// TestSecondAgent starts an agent beside a living one, and one after a killed
// one: the first is refused, the second takes over.
func TestSecondAgent(t *testing.T) {
	f := newFaults(t, lab.Options{})
	first := f.edge().Agents[1]
	second, err := first.Host.NewAgent(lab.AgentConfig{NodeIP: f.edge().Nodes[1].IP, Gateways: f.Gateways})
	if err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, second, 1, "corax: agent: local API: ", "agent.sock: another agent answers there")
	second.SetArgs("--vxlan-port", "4999", "--socket", first.Host.Dir()+"/other.sock", "--datapath", "tun")
	wantRefusal(t, second, 1, "corax0", "another agent is attached to it")
	f.undisturbed()

	if err := first.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(first.Socket()); err != nil {
		t.Errorf("the dead agent's socket: %v", err)
	}
	// What keeps packets in stays when the next start fails.
	before := snapshot(t, first.Host)
	second.SetArgs("--socket", "/proc/corax/agent.sock")
	wantRefusal(t, second, 1, "local API: ")
	second.SetArgs("--node-ip", "198.51.100.1")
	wantRefusal(t, second, 1, "vxlan: ")
	sameHost(t, first.Host, before)
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := first.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	f.await(t, first, 10*time.Second, lab.Untroubled)
}
