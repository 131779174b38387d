//go:build linux

package lab

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakeEnv makes the test binary behave as corax does towards the lab: key, agent
// and status, with nothing behind them.
const fakeEnv = "CORAX_LAB_TEST_FAKE"

func fakeMain(args []string) int {
	if len(args) == 0 {
		return 3
	}
	fs := flag.NewFlagSet(args[0], flag.ContinueOnError)
	node := fs.String("node-name", "", "")
	nodeIP := fs.String("node-ip", "", "")
	socket := fs.String("socket", "", "")
	state := fs.String("state-dir", "", "")
	fs.String("gateways", "", "")
	fail := fs.Bool("fail", false, "")
	if err := fs.Parse(args[1:]); err != nil {
		return 3
	}
	switch {
	case *fail:
		fmt.Fprintln(os.Stderr, "corax: agent: no such luck")
		return 1
	case args[0] == "key":
		fmt.Printf("key of %s\n", *state)
		return 0
	case args[0] == "status":
		fmt.Println("asked", *socket)
		return 0
	}
	return fakeAgent(*node, *nodeIP, *socket)
}

func fakeAgent(node, nodeIP, socket string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	_ = os.Remove(socket)
	local, err := net.Listen("unix", socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	health, err := net.Listen("tcp", net.JoinHostPort(nodeIP, "10284"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var asked atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/status", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"node": %q, "role": "gateway", "peers": [{"node": "hub", "path": {"kind": "direct"}}, {"node": "lost", "path": {"kind": "none", "why": "no answer"}}]}`, node)
	})
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) < 3 {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
		}
	})
	go func() { _ = http.Serve(local, mux) }()
	go func() { _ = http.Serve(health, mux) }()
	<-ctx.Done()
	return 0
}

func fakeBinary(t *testing.T) string {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(fakeEnv, "1")
	return self
}

func TestAgent(t *testing.T) {
	l := ForTest(t)
	h := l.Host("n1")
	h.AddAddr("lo", netip.MustParsePrefix("192.168.1.10/32"))
	ctx := ctxFor(t, 20*time.Second)
	a, err := h.Agent(AgentConfig{NodeIP: netip.MustParseAddr("192.168.1.10"), Binary: fakeBinary(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	s, err := a.Status(ctx)
	if err != nil || s.Node != "n1" || s.Role != "gateway" {
		t.Fatalf("%+v, %v", s, err)
	}
	if err := a.WaitStatus(ctx, Reached("hub")); err != nil {
		t.Error(err)
	}
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if err := a.WaitStatus(short, Reached("hub", "lost")); err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("wait for a lost peer: %v", err)
	}
	if out, err := a.Command(ctx, "status"); err != nil || string(out) != "asked "+a.Socket()+"\n" {
		t.Errorf("%q, %v", out, err)
	}
	if k, err := a.Key(ctx); err != nil || k != "key of "+a.StateDir() {
		t.Errorf("%q, %v", k, err)
	}
	pid := a.Process().PID()
	if err := a.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := a.WaitReady(ctx); err != nil || a.Process().PID() == pid {
		t.Errorf("after a restart: %v", err)
	}
	if err := a.Kill(); err != nil {
		t.Error(err)
	}
	if err := a.WaitReady(ctx); !strings.Contains(fmt.Sprint(err), "ended") {
		t.Errorf("a killed agent is ready: %v", err)
	}
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	if err := a.WaitReady(ctx); err != nil {
		t.Error(err)
	}
	if err := a.Stop(); err != nil {
		t.Error(err)
	}
}

func TestAgentThatFails(t *testing.T) {
	l := ForTest(t)
	h := l.Host("n1")
	ctx := ctxFor(t, 20*time.Second)
	a, err := h.Agent(AgentConfig{NodeIP: netip.MustParseAddr("127.0.0.1"), Binary: fakeBinary(t), Args: []string{"--fail"}})
	if err != nil {
		t.Fatal(err)
	}
	err = a.WaitReady(ctx)
	if !strings.HasSuffix(fmt.Sprint(err), "the agent ended: corax: agent: no such luck") {
		t.Error(err)
	}
	if err := a.Stop(); err == nil {
		t.Error("a failed agent stopped well")
	}
	if _, err := h.Agent(AgentConfig{NodeIP: netip.MustParseAddr("127.0.0.1"), Binary: "/no/such/corax"}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestStopKillsTheDeaf(t *testing.T) {
	l := ForTest(t)
	h := l.Host("h")
	p, err := h.Start("deaf", deafCommand())
	if err != nil {
		t.Fatal(err)
	}
	// The trap is in place once the program has said so.
	err = poll(ctxFor(t, 10*time.Second), 5*time.Millisecond, func() error {
		b, err := os.ReadFile(p.Log)
		if err == nil && len(b) == 0 {
			err = errors.New("not deaf yet")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(100 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "SIGTERM") {
		t.Errorf("%v", err)
	}
	if err := gone(p.PID()); err != nil {
		t.Error(err)
	}
}

func TestPrepare(t *testing.T) {
	l := ForTest(t)
	t.Setenv(BinaryEnv, fakeBinary(t))
	topo := Standard(l, Options{Edges: 1, Nodes: 2, V6Underlay: true})
	ctx := ctxFor(t, 30*time.Second)
	if err := topo.Start(ctx); err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, p := range must(filepath.Glob(filepath.Join(topo.Gateways, "*"))) {
		files = append(files, filepath.Base(p))
	}
	if diff := cmp.Diff([]string{"cloud.yaml", "edge-a.yaml"}, files); diff != "" {
		t.Error(diff)
	}
	if n := len(topo.Agents()); n != 4 || topo.Agent("edge-a-1") == nil {
		t.Errorf("%d agents", n)
	}
	g := topo.Object(topo.Domains[0], map[string]string{"cloud-gw": "k"})
	if e := g.Endpoints[0]; !e.PublicIP.Is6() || e.UnderNAT || e.PublicKey != "k" || len(g.Nodes) != 2 {
		t.Errorf("%+v", g)
	}
	if g := topo.Object(topo.Domains[1], nil); !g.Endpoints[0].UnderNAT || g.Endpoints[0].PublicIP.IsValid() {
		t.Errorf("%+v", g)
	}
}

func must[T any](v T, _ error) T { return v }

func TestSave(t *testing.T) {
	l, nodes := twoNodes(t, nil)
	if _, err := nodes[0].Capture("eth0", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := nodes[0].Run(ctxFor(t, 5*time.Second), "true"); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "saved")
	if err := l.Save(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"n1-eth0-0.pcap", "n1.state", "n2.pod.state", "n1-run.log"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}
