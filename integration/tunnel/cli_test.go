//go:build linux

package tunnel_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"corax/integration/lab"
)

// result is what a command said.
type result struct {
	out, err string
	code     int
}

// corax runs a command on a host to its end.
func corax(t *testing.T, h *lab.Host, args ...string) result {
	t.Helper()
	return coraxAs(t, h, syscall.SysProcAttr{}, args...)
}

func coraxAs(t *testing.T, h *lab.Host, attr syscall.SysProcAttr, args ...string) result {
	t.Helper()
	path, err := lab.Corax()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &out, &errs, &attr
	p, err := h.Start("command", cmd)
	if attr.Credential != nil && (errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EPERM)) {
		lacking(t, "this user namespace has one user only")
	}
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Done():
	case <-time.After(20 * time.Second):
		_ = p.Kill()
		t.Fatalf("corax %v does not end", args)
	}
	return result{out.String(), errs.String(), exitCode(p)}
}

// check compares a result: what stands in out and err, and the code.
func (r result) check(t *testing.T, code int, out, err string) {
	t.Helper()
	if r.code != code || !strings.Contains(r.out, out) || !strings.Contains(r.err, err) {
		t.Errorf("exit code %d, output %q, errors %q\nwant %d, %q, %q", r.code, r.out, r.err, code, out, err)
	}
	if err == "" && r.err != "" {
		t.Errorf("errors %q, want none", r.err)
	}
}

// TestStatusCommand looks at live agents with every form of corax status, and
// wants the exit codes that its help promises.
func TestStatusCommand(t *testing.T) {
	f := newFaults(t, lab.Options{})
	hub, plain := f.hub(), f.edge().Agents[1]
	status := func(a *lab.Agent, args ...string) result {
		return corax(t, a.Host, append([]string{"status", "--socket", a.Socket()}, args...)...)
	}
	f.await(t, hub, 10*time.Second, pathKind("edge-a-gw", "direct"))
	f.await(t, plain, 10*time.Second, pathKind("edge-a-gw", "vxlan"))

	t.Run("table", func(t *testing.T) {
		r := status(hub)
		r.check(t, 0, "node         cloud-gw, gateway node of cloud\n", "")
		r.check(t, 0, "peers        1, all reachable\n", "")
		r.check(t, 0, "\nGATEWAY   NODE        PATH     VIA   RTT", "")
		r.check(t, 0, "\nedge-a    edge-a-gw   direct   ", "")
		r = status(plain, "-o", "table")
		r.check(t, 0, "node         edge-a-1, node of edge-a\n", "")
		r.check(t, 0, "\nedge-a    edge-a-gw   vxlan   ", "")
	})
	t.Run("wide", func(t *testing.T) {
		r := status(hub, "-o", "wide")
		for _, word := range []string{
			"ENDPOINT", "MTU", "OVERLAY", "SUBNETS", "NAT", "WHY",
			":4500", "10.244.10.0/24,10.244.11.0/24", "direct is the best there is",
		} {
			r.check(t, 0, word, "")
		}
	})
	t.Run("json and yaml", func(t *testing.T) {
		wantDocument(t, status(hub, "-o", "json"), status(hub, "-o", "yaml"), map[string]any{
			"node": "cloud-gw", "gateway": "cloud", "role": "gateway", "datapath": "tun", "mtu": 1408.0, "problems": []any{},
		})
		wantDocument(t, status(plain, "-o", "json"), status(plain, "-o", "yaml"), map[string]any{
			"node": "edge-a-1", "gateway": "edge-a", "role": "node", "datapath": "tun",
		})
	})
	t.Run("no key", func(t *testing.T) {
		private, err := os.ReadFile(filepath.Join(hub.StateDir(), "private.key"))
		if err != nil {
			t.Fatal(err)
		}
		secret := strings.TrimSpace(string(private))
		log, err := os.ReadFile(hub.LogFile())
		if err != nil || len(secret) < 40 {
			t.Fatal(err, len(secret))
		}
		for _, text := range []string{status(hub, "-o", "json").out, status(hub, "-o", "wide").out, string(log)} {
			if strings.Contains(text, secret[:20]) {
				t.Error("the private key is shown")
			}
		}
	})
	t.Run("usage", func(t *testing.T) {
		status(hub, "-o", "xml").check(t, 3, "", `corax: status: --output: "xml" is none of table, wide, json, yaml`)
		status(hub, "--what").check(t, 3, "", "corax: status: unknown flag: --what")
		status(hub, "edge-a").check(t, 3, "", "corax: status: ")
	})
	t.Run("no agent", func(t *testing.T) {
		corax(t, hub.Host, "status", "--socket", "/nonexistent/agent.sock").check(t, 2, "",
			"corax: status: ask the agent: dial unix /nonexistent/agent.sock: connect: no such file or directory\n  no agent runs on this node")
		if err := plain.Kill(); err != nil {
			t.Fatal(err)
		}
		status(plain).check(t, 2, "", "the agent that made this socket has died")
		if err := plain.Start(); err != nil {
			t.Fatal(err)
		}
		f.await(t, plain, 20*time.Second, pathKind("edge-a-gw", "vxlan"))
	})
	t.Run("a peer is away", func(t *testing.T) {
		// Its plain node sees it first.
		if err := f.edge().Agents[0].Kill(); err != nil {
			t.Fatal(err)
		}
		f.await(t, plain, 20*time.Second, pathKind("edge-a-gw", "none"))
		r := status(plain)
		r.check(t, 1, "peers        1 of 1 not reachable\n", "")
		r = status(plain, "-o", "wide")
		r.check(t, 1, "192.168.1.10 does not answer pings over VXLAN for ", "")
		r.check(t, 1, ": is its agent running, and UDP 4472 open between the nodes?", "")
		if err := f.edge().Agents[0].Start(); err != nil {
			t.Fatal(err)
		}
		f.await(t, plain, 20*time.Second, pathKind("edge-a-gw", "vxlan"))
		status(plain).check(t, 0, "peers        1, all reachable\n", "")
		f.flow.Reset() // the dead gateway node carried it
	})
}

// wantDocument checks that JSON and YAML say the same under the keys that are
// documented.
func wantDocument(t *testing.T, asJSON, asYAML result, want map[string]any) {
	t.Helper()
	asJSON.check(t, 0, "", "")
	asYAML.check(t, 0, "", "")
	var j, y map[string]any
	if err := json.Unmarshal([]byte(asJSON.out), &j); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(asYAML.out), &y); err != nil {
		t.Fatal(err)
	}
	for k, v := range want {
		if diff := cmp.Diff(v, j[k]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", k, diff)
		}
	}
	top := []string{"node", "gateway", "role", "datapath", "datapathReason", "publicKey", "overlayAddress", "mtu", "version", "allowSources", "problems", "peers", "memory", "counters"}
	peer := []string{"gateway", "node", "publicKey", "overlayAddress", "subnets", "path", "rttMillis", "lossRatio", "mtu", "rxBytes", "txBytes", "nat"}
	for _, doc := range []map[string]any{j, y} {
		delete(doc, "proxy") // not of a plain node
		wantKeys(t, doc, top)
		peers, ok := doc["peers"].([]any)
		if !ok || len(peers) != 1 {
			t.Fatalf("peers: %v", doc["peers"])
		}
		p := peers[0].(map[string]any)
		delete(p, "lastHandshake") // not with VXLAN
		wantKeys(t, p, peer)
		wantKeys(t, p["path"].(map[string]any), []string{"kind", "endpoint", "via", "why"})
		wantKeys(t, p["nat"].(map[string]any), []string{"local", "remote"})
	}
}

func wantKeys(t *testing.T, doc map[string]any, want []string) {
	t.Helper()
	if diff := cmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(maps.Keys(doc))); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
}

// TestStatusWatch watches an agent that gets a problem, restarts, and is rid of
// it.
func TestStatusWatch(t *testing.T) {
	f := newFaults(t, lab.Options{})
	a := f.edge().Agents[1]
	path, err := lab.Corax()
	if err != nil {
		t.Fatal(err)
	}
	p, err := a.Host.Start("watch", exec.Command(path, "status", "--watch", "--socket", a.Socket()))
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	wait := func(text string) {
		t.Helper()
		deadline := time.Now().Add(15 * time.Second)
		for {
			b, err := os.ReadFile(p.Log)
			if err != nil {
				t.Fatal(err)
			}
			if i := strings.Index(string(b[shown:]), text); i >= 0 {
				shown += i + len(text)
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("not shown: %q in\n%s", text, b[shown:])
			}
			<-time.After(50 * time.Millisecond)
		}
	}
	bad := filepath.Join(f.Gateways, "bad.yaml")
	wait("node         edge-a-1, node of edge-a\n")
	put(t, f.Gateways, "bad.yaml", nil)
	wait("problems:\n  - bad.yaml:1: no Gateway in it")
	if err := a.Kill(); err != nil {
		t.Fatal(err)
	}
	wait("corax: status: ask the agent: ")
	if err := os.Remove(bad); err != nil {
		t.Fatal(err)
	}
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	wait("node         edge-a-1, node of edge-a\n")
	f.await(t, a, 10*time.Second, pathKind("edge-a-gw", "vxlan"))
	if err := p.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("an interrupt does not end it")
	}
	if code := exitCode(p); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestPingCommand pings by every name that a peer has, and one that is away.
func TestPingCommand(t *testing.T) {
	f := newFaults(t, lab.Options{Edges: 2})
	hub, plain := f.hub(), f.edge().Agents[1]
	ping := func(a *lab.Agent, args ...string) result {
		return corax(t, a.Host, append([]string{"ping", "--socket", a.Socket()}, args...)...)
	}
	f.await(t, hub, 10*time.Second, pathKind("edge-a-gw", "direct"))
	overlay := f.status(f.edge().Agents[0]).OverlayAddress
	for _, target := range []string{"edge-a", "edge-a-gw", overlay, f.edge().Nodes[1].Pods[0].IP.String(), f.edge().Nodes[1].Pods[0].IP6.String()} {
		r := ping(hub, target, "-c", "1")
		r.check(t, 0, "answer from edge-a/edge-a-gw ("+overlay+"): seq=1 time=", "")
		r.check(t, 0, "path=direct ", "")
		r.check(t, 0, "\n"+target+": 1 sent, 1 answered, 0 % lost; round trip min ", "")
	}
	ping(hub, "edge-b", "--until-direct").check(t, 0, "path=direct ", "")
	// A plain node reaches its gateway node, and asks that one's about a pod.
	ping(plain, "edge-a-gw", "-c", "2").check(t, 0, "path=vxlan 192.168.1.10:4472\n", "")
	ping(plain, f.cloud().Nodes[1].Pods[0].IP.String(), "-c", "1").check(t, 0, "answer from edge-a/edge-a-gw (", "")

	ping(hub, "nowhere", "-c", "1").check(t, 1, "", `corax: ping nowhere: "nowhere": no peer, node or address of that name`)
	ping(hub, "192.0.2.77", "-c", "1").check(t, 1, "", "no peer, node or address of that name")
	ping(hub).check(t, 3, "", "corax: ping: exactly one peer, node or IP address is needed")
	ping(hub, "edge-a", "-c", "0").check(t, 3, "", "corax: ping: --count: 0 is not a number")
	corax(t, hub.Host, "ping", "edge-a", "--socket", "/nonexistent/sock").check(t, 2, "", "no such file")

	if err := f.Domains[2].Agents[0].Kill(); err != nil {
		t.Fatal(err)
	}
	r := ping(hub, "edge-b-gw", "-c", "2")
	r.check(t, 1, "no answer from edge-b/edge-b-gw (", "")
	r.check(t, 1, "\nedge-b-gw: 2 sent, 0 answered, 100 % lost\n", "")
}

// TestSocketRefuses: only root and the agent's user may ask an agent, even when
// somebody opens its socket.
func TestSocketRefuses(t *testing.T) {
	l := lab.ForTest(t)
	h := l.Host("node")
	ip := netip.MustParseAddr("192.0.2.1")
	h.AddAddr("lo", netip.PrefixFrom(ip, 32))
	a, err := h.Agent(lab.AgentConfig{NodeIP: ip, Gateways: l.Dir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := a.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(a.Socket())
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", st.Mode(), err)
	}
	if err := os.Chmod(l.Dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	status := func() result { return coraxAs(t, h, asNobody(), "status", "--socket", a.Socket()) }
	status().check(t, 2, "", "connect: permission denied\n  only root and the user of the agent may ask it; try: sudo")
	if err := os.Chmod(a.Socket(), 0o666); err != nil {
		t.Fatal(err)
	}
	status().check(t, 2, "", "corax: status: only root and user 0 may ask this agent\n  try: sudo")
	corax(t, h, "status", "--socket", a.Socket()).check(t, 0, "node, in no gateway", "")
}

// TestKeyCommand makes a key once, and refuses one that others could read.
func TestKeyCommand(t *testing.T) {
	l := lab.ForTest(t)
	h := l.Host("node")
	dir := filepath.Join(h.Dir(), "new", "state")
	first := corax(t, h, "key", "--state-dir", dir)
	first.check(t, 0, "=\n", "made a new key pair in "+dir)
	corax(t, h, "key", "--state-dir", dir).check(t, 0, first.out, "")
	private := filepath.Join(dir, "private.key")
	for p, want := range map[string]os.FileMode{dir: 0o700, private: 0o600} {
		if st, err := os.Stat(p); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", p, st.Mode(), err)
		}
	}
	for _, mode := range []os.FileMode{0o604, 0o640} {
		if err := os.Chmod(private, mode); err != nil {
			t.Fatal(err)
		}
		corax(t, h, "key", "--state-dir", dir).check(t, 1, "",
			fmt.Sprintf("corax: key: read private key: %s has mode %04o: group or others can access it\n  try: chmod 600 %s\n", private, mode, private))
	}
	if err := os.Chmod(private, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	corax(t, h, "key", "--state-dir", dir).check(t, 1, "", "try: chmod 700 "+dir)
	corax(t, h, "key", "extra").check(t, 3, "", "corax: key: ")
}
