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

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"corax/integration/lab"
)

// fill takes what is left of the file system of a directory, as the host sees
// it.
func fill(h *lab.Host, dir string) error {
	return h.Do(func() error {
		f, err := os.Create(filepath.Join(dir, "filler"))
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		for {
			if _, err := f.Write(make([]byte, 512)); err != nil {
				if errors.Is(err, unix.ENOSPC) {
					return nil
				}
				return err
			}
		}
	})
}

func unfill(h *lab.Host, dir string) error {
	return h.Do(func() error { return os.Remove(filepath.Join(dir, "filler")) })
}

// smallDisk puts a state directory on a file system of its own, which is full.
func smallDisk(t *testing.T, a *lab.Agent, files map[string][]byte) {
	t.Helper()
	dir := a.StateDir()
	err := a.Host.Do(func() error {
		own := fmt.Sprintf("size=64k,mode=700,uid=%d,gid=%[1]d", a.User())
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, own); err != nil {
			return err
		}
		for name, b := range files {
			file := filepath.Join(dir, name)
			if err := errors.Join(os.WriteFile(file, b, 0o600), os.Chown(file, a.User(), a.User())); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = fill(a.Host, dir)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestFullDisk runs a gateway node whose state directory is full: it works, says
// what it could not save, and saves it when there is room.
func TestFullDisk(t *testing.T) {
	f := prepareFaults(t, lab.Options{})
	a := f.edge().Agents[0]
	private, err := os.ReadFile(filepath.Join(a.StateDir(), "private.key"))
	if err != nil {
		t.Fatal(err)
	}
	smallDisk(t, a, map[string][]byte{"private.key": private})
	for _, a := range f.Agents() {
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	f.ready(ctx)
	f.startFlow(ctx)
	f.await(t, a, 20*time.Second, lab.Troubled("memory.json: write ", "file/gateways.json: cannot be written"))
	f.await(t, a, time.Second, lab.Troubled("no space left on device"))
	if err := unfill(a.Host, a.StateDir()); err != nil {
		t.Fatal(err)
	}
	f.await(t, a, 20*time.Second, lab.Untroubled)
	var left []os.DirEntry
	err = a.Host.Do(func() (err error) {
		left, err = os.ReadDir(a.StateDir())
		return err
	})
	if err != nil || len(left) != 3 {
		t.Errorf("in the state directory: %v, %v", left, err)
	}
}

// TestFullDiskKey makes no key on a full disk, says why, and leaves nothing that
// stands in the way of a key when there is room.
func TestFullDiskKey(t *testing.T) {
	l := lab.ForTest(t)
	h := l.Host("node")
	h.AddAddr("lo", netip.MustParsePrefix("192.0.2.1/32"))
	a, err := h.NewAgent(lab.AgentConfig{NodeIP: netip.MustParseAddr("192.0.2.1"), Gateways: l.Dir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(a.StateDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	smallDisk(t, a, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := a.Key(ctx); err == nil || !strings.Contains(err.Error(), "corax: key: write private key: ") || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("corax key: %v", err)
	}
	wantRefusal(t, a, 1, "no space left on device")
	if err := unfill(h, a.StateDir()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Key(ctx); err != nil {
		t.Error(err)
	}
}

// TestNoGateway takes a plain node out of the objects, and puts it back: it has
// no role, no peer and nothing to complain of, and no other node notices.
func TestNoGateway(t *testing.T) {
	f := newFaults(t, lab.Options{Nodes: 3})
	node, agent := f.edge().Nodes[2], f.edge().Agents[2]
	keys := map[string]string{f.edge().Gateway().Name: f.status(f.edge().Agents[0]).PublicKey}
	whole := f.Object(f.edge(), keys)
	without := whole
	without.Nodes = whole.Nodes[:2]
	if err := without.Write(f.Gateways); err != nil {
		t.Fatal(err)
	}
	f.await(t, agent, 10*time.Second, func(s *lab.Status) error {
		if s.Role != "none" || s.Gateway != "" || len(s.Peers) != 0 || len(s.Problems) != 0 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := agent.Ready(ctx); err != nil {
		t.Error(err)
	}
	if out, err := agent.Command(ctx, "status"); err != nil || !strings.Contains(string(out), node.Name+", in no gateway") {
		t.Errorf("corax status: %s, %v", out, err)
	}
	if err := whole.Write(f.Gateways); err != nil {
		t.Fatal(err)
	}
	f.await(t, agent, 10*time.Second, pathKind(f.edge().Gateway().Name, "vxlan"))
	if _, err := node.Pods[0].PingUntil(ctx, f.cloud().Nodes[1].Pods[0].IP, lab.PingOptions{}); err != nil {
		t.Error(err)
	}
	f.undisturbed()
}

// TestWrongKey gives an edge's gateway node another key in the objects: it says
// so itself, its peers say what they see, and another edge goes on.
func TestWrongKey(t *testing.T) {
	f := newFaults(t, lab.Options{Edges: 2})
	other := f.Domains[2]
	gw := other.Gateway().Name
	ctx, cancel := context.WithTimeout(t.Context(), 35*time.Second)
	defer cancel()
	from, to := other.Nodes[1].Pods[0], f.cloud().Nodes[1].Pods[0]
	if _, err := from.PingUntil(ctx, to.IP, lab.PingOptions{}); err != nil {
		t.Fatal(err)
	}
	right := f.status(other.Agents[0]).PublicKey
	for _, step := range []struct{ key, problem string }{
		{"bm90IGEga2V5", "public key: 9 bytes, want 32"},
		{f.status(f.hub()).PublicKey, "gateway cloud, node cloud-gw has the same public key; that of node " + gw + " is left out"},
		{"CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=", "not the public key of node " + gw + ": its peers cannot reach it"},
	} {
		if err := f.Object(other, map[string]string{gw: step.key}).Write(f.Gateways); err != nil {
			t.Fatal(err)
		}
		f.await(t, other.Agents[0], 10*time.Second, lab.Troubled(step.problem))
	}
	// A start with the wrong key listed: the hub does not answer.
	if err := other.Agents[0].Restart(); err != nil {
		t.Fatal(err)
	}
	f.await(t, other.Agents[0], 10*time.Second, func(s *lab.Status) error {
		p := s.Peer("cloud-gw")
		if p == nil || p.Path.Kind != "none" || !strings.Contains(p.Path.Why, "has not answered a handshake: is UDP open to it, does it list this node's key?") {
			return fmt.Errorf("peer %+v", p)
		}
		return nil
	})
	f.await(t, f.hub(), 10*time.Second, counted("wg_drop_total{unknown_peer}", 1))
	if err := f.Object(other, map[string]string{gw: right}).Write(f.Gateways); err != nil {
		t.Fatal(err)
	}
	for _, a := range f.Agents() {
		f.await(t, a, 10*time.Second, lab.Untroubled)
	}
	if _, err := from.PingUntil(ctx, to.IP, lab.PingOptions{}); err != nil {
		t.Error(err)
	}
	f.undisturbed()
}

// TestTakeOver starts an agent on a node where a Raven agent left its device and
// rules: it refuses, and takes over when it is told to.
func TestTakeOver(t *testing.T) {
	f := prepareFaults(t, lab.Options{})
	node, agent := f.edge().Nodes[1], f.edge().Agents[1]
	nl := node.Netlink()
	eth0, err := nl.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	raven := &netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: "raven0", MTU: 1350},
		VxlanId:   200, Port: 4472, VtepDevIndex: eth0.Attrs().Index, Age: 300,
	}
	clean := snapshot(t, node.Host)
	if err := nl.LinkAdd(raven); err != nil {
		lacking(t, "no kernel VXLAN: %v", err)
	}
	if err := nl.LinkSetUp(raven); err != nil {
		t.Fatal(err)
	}
	rule := netlink.NewRule()
	rule.Priority, rule.Table, rule.Mark, rule.Family = 100, 9027, 0x40, unix.AF_INET
	if err := nl.RuleAdd(rule); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, node.Host)
	wantRefusal(t, agent, 1, "corax: agent: hostnet: ", "a Raven agent's devices or rules are on this host: link raven0, rule 100 lookup 9027")
	sameHost(t, node.Host, before)
	agent.SetArgs("--take-over")
	for _, a := range f.Agents() {
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	f.ready(ctx)
	f.startFlow(ctx)
	f.undisturbed()
	_, _ = f.flow.Stop()
	if err := agent.Stop(); err != nil {
		t.Error(err)
	}
	sameHost(t, node.Host, clean)
}

// wantRefusal starts an agent and wants it to end soon with an exit code and
// one line that says all the texts.
func wantRefusal(t *testing.T, a *lab.Agent, code int, texts ...string) {
	t.Helper()
	before, _ := os.ReadFile(a.LogFile())
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	wantEnd(t, a, string(before), code, texts...)
}

// wantEnd wants a running agent to end soon with an exit code and one line that
// says all the texts, after what its log says already.
func wantEnd(t *testing.T, a *lab.Agent, before string, code int, texts ...string) {
	t.Helper()
	select {
	case <-a.Process().Done():
	case <-time.After(10 * time.Second):
		_ = a.Kill()
		t.Errorf("the agent runs; it should end: %q", texts)
		return
	}
	log, err := os.ReadFile(a.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	line := ""
	for l := range strings.Lines(strings.TrimPrefix(string(log), before)) {
		if strings.HasPrefix(l, "corax: ") {
			line = l
		}
	}
	for _, text := range texts {
		if !strings.Contains(line, text) {
			t.Errorf("the agent says %q, want %q", line, text)
		}
	}
	if got := exitCode(a.Process()); got != code {
		t.Errorf("exit code %d, want %d", got, code)
	}
}

// exitCode is that of a process that has ended.
func exitCode(p *lab.Process) int {
	err := p.Stop(time.Second)
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}
