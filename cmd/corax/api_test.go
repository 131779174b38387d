package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"corax/dataplane"
)

// fakeAgent answers the local API in place of wire.go.
type fakeAgent struct {
	mu     sync.Mutex
	status Status
	ping   func(ctx context.Context, target string, n int, reply func(PingReply)) error
	notOK  []string

	paths    func(name string) (Paths, error)
	netcheck func(ctx context.Context) (Netcheck, error)
	streams  func() ProxyStreams
	maps     *fakeMaps
	connect  func(ctx context.Context, t streamTarget) (net.Conn, error)
}

func (f *fakeAgent) set(change func(s *Status)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.status)
}

func (f *fakeAgent) api() agentAPI {
	api := agentAPI{
		Connect: f.connect,
		Status: func() Status {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.status
		},
		Ping: func(ctx context.Context, target string, n int, reply func(PingReply)) error {
			return f.ping(ctx, target, n, reply)
		},
		Paths:    f.paths,
		Netcheck: f.netcheck,
		Streams:  f.streams,
		Ready:    func() (bool, []string) { return len(f.notOK) == 0, f.notOK },
		Counters: func() []dataplane.Counter {
			return []dataplane.Counter{
				{Name: "vxlan_drop_total", Reason: "unknown_vtep", Value: 3},
				{Name: "vxlan_drop_total", Reason: "unknown_vtep", Value: 4},
				{Name: "vxlan_drop_total", Reason: "short", Value: 1},
				{Name: "fabric_table_prefixes", Value: 12},
			}
		},
	}
	if f.maps != nil {
		api.Forwards, api.AddForward, api.RemoveForward = f.maps.list, f.maps.add, f.maps.remove
	}
	return api
}

// startLocal runs a local API on a socket of its own until the test ends or stop
// is called.
func startLocal(t *testing.T, f *fakeAgent) (socket string, stop func()) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "run", "agent.sock")
	return socket, startLocalAt(t, f, agentConfig{Socket: socket})
}

func startLocalAt(t *testing.T, f *fakeAgent, cfg agentConfig) (stop func()) {
	t.Helper()
	l, err := newLocal(cfg, f.api(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// corax runs the program and returns what it wrote.
func corax(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out, errs bytes.Buffer
	code = run(ctx, args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestStatusOverSocket(t *testing.T) {
	f := &fakeAgent{status: sampleStatus()}
	socket, stop := startLocal(t, f)

	st, err := os.Stat(socket)
	if err != nil || st.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("socket has mode %v (%v), want 0600", st.Mode(), err)
	}

	code, stdout, stderr := corax(t, "status", "-o", "json", "--socket", socket)
	if code != exitFailed || stderr != "" {
		t.Errorf("a peer without path: exit code %d, stderr %q", code, stderr)
	}
	var got Status
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(sampleStatus(), got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}

	f.set(func(s *Status) { s.Peers = s.Peers[:3] })
	if code, stdout, _ := corax(t, "status", "--socket", socket); code != exitOK || !strings.Contains(stdout, "3, all reachable") {
		t.Errorf("direct, relay and idle: exit code %d\n%s", code, stdout)
	}

	stop()
	if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
	if code, _, stderr := corax(t, "status", "--socket", socket); code != exitNoAgent {
		t.Errorf("after the end: exit code %d, %s", code, stderr)
	}
}

// Lists are never null in JSON, whatever the agent gives.
func TestEmptyStatus(t *testing.T) {
	socket, _ := startLocal(t, &fakeAgent{status: Status{Peers: []Peer{{Path: Path{Kind: PathIdle}}}}})
	_, stdout, _ := corax(t, "status", "-o", "json", "--socket", socket)
	if strings.Contains(stdout, "null") || !strings.Contains(stdout, `"subnets": []`) {
		t.Errorf("status has null:\n%s", stdout)
	}
}

func TestStaleAndLivingSocket(t *testing.T) {
	f := &fakeAgent{status: Status{Node: "first"}}
	socket, stop := startLocal(t, f)

	if _, err := listenSocket(socket); !errors.Is(err, errSocketAlive) {
		t.Errorf("a second agent: %v, want errSocketAlive", err)
	}
	if code, _, _ := corax(t, "status", "--socket", socket); code != exitOK {
		t.Error("the first agent does not answer any more")
	}
	stop()

	// What a killed agent leaves.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := corax(t, "status", "--socket", socket); code != exitNoAgent || !strings.Contains(stderr, "has died") {
		t.Errorf("stale socket: exit code %d, %s", code, stderr)
	}
	startLocalAt(t, &fakeAgent{status: Status{Node: "second"}}, agentConfig{Socket: socket})
	if _, stdout, _ := corax(t, "status", "--socket", socket); !strings.Contains(stdout, "second") {
		t.Errorf("after the stale socket was replaced:\n%s", stdout)
	}
}

func TestSocketPathTaken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenSocket(file); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("error %v", err)
	}
	if text, _ := os.ReadFile(file); string(text) != "mine" {
		t.Error("the file was replaced")
	}
}

// Of several agents that start at once on a stale socket one wins, and stays.
func TestConcurrentStart(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	const n = 8
	var (
		lns  [n]net.Listener
		errs [n]error
		wg   sync.WaitGroup
	)
	for i := range n {
		wg.Go(func() { lns[i], errs[i] = listenSocket(socket) })
	}
	wg.Wait()
	winners := 0
	for i := range n {
		switch {
		case errs[i] == nil:
			winners++
			conn, err := net.Dial("unix", socket)
			if err != nil {
				t.Errorf("the winner cannot be reached: %v", err)
			} else {
				_ = conn.Close()
			}
		case !errors.Is(errs[i], errSocketAlive):
			t.Error(errs[i])
		}
	}
	if winners != 1 {
		t.Errorf("%d winners, want 1", winners)
	}
	for _, ln := range lns {
		if ln != nil {
			_ = ln.Close()
		}
	}
}

func TestUnknownPathAndMethod(t *testing.T) {
	socket, _ := startLocal(t, &fakeAgent{})
	for request, want := range map[string]string{
		"GET /v1/nothing HTTP/1.0\r\n\r\n":                 "404",
		"POST /v1/status HTTP/1.0\r\n\r\n":                 "405",
		"GET /v1/ping HTTP/1.0\r\n\r\n":                    "400",
		"GET /v1/ping?target=a&count=-1 HTTP/1.0\r\n\r\n":  "400",
		"GET /v1/ping?target=a&count=1e9 HTTP/1.0\r\n\r\n": "400",
	} {
		if got := ask(t, socket, request); !strings.HasPrefix(got, "HTTP/1.0 "+want) {
			t.Errorf("%q: %q, want %s", request, got, want)
		}
	}
}

// ask sends one raw request and returns the whole answer.
func ask(t *testing.T, socket, request string) string {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer, err := exchange(conn, request)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func exchange(conn net.Conn, request string) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	if _, err := conn.Write([]byte(request)); err != nil {
		return "", err
	}
	var answer bytes.Buffer
	if _, err := answer.ReadFrom(conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		return "", err
	}
	return answer.String(), nil
}

func TestPing(t *testing.T) {
	reply := func(seq int, kind PathKind) PingReply {
		return PingReply{
			Seq: seq, Gateway: "edge-a", Node: "edge-a-1", Address: netip.MustParseAddr("fd63:6f72:6178::1"),
			RTTMillis: float64(10 * seq), Path: Path{Kind: kind, Endpoint: "198.51.100.7:4500"},
		}
	}
	f := &fakeAgent{}
	socket, _ := startLocal(t, f)
	for _, tt := range []struct {
		name       string
		args       []string
		ping       func(ctx context.Context, target string, n int, reply func(PingReply)) error
		code       int
		out, errIn []string
	}{
		{
			name: "count", args: []string{"edge-a", "-c", "3"}, out: []string{
				"answer from edge-a/edge-a-1 (fd63:6f72:6178::1): seq=1 time=10.0 ms path=relay via hub-1 198.51.100.7:4500\n",
				"no answer from edge-a/edge-a-1 (fd63:6f72:6178::1): seq=2\n",
				"answer from edge-a/edge-a-1 (fd63:6f72:6178::1): seq=3 time=30.0 ms path=direct 198.51.100.7:4500\n",
				"\nedge-a: 3 sent, 2 answered, 33 % lost; round trip min 10.0 ms, mean 20.0 ms, max 30.0 ms\n",
			},
			ping: func(_ context.Context, target string, n int, out func(PingReply)) error {
				if target != "edge-a" || n != 3 {
					return fmt.Errorf("asked for %q, %d", target, n)
				}
				first := reply(1, PathRelay)
				first.Path.Via = []string{"hub-1"}
				out(first)
				lost := reply(2, PathNone)
				lost.Lost, lost.RTTMillis = true, 0
				out(lost)
				out(reply(3, PathDirect))
				return nil
			},
		},
		{
			name: "all lost", args: []string{"edge-a", "-c", "1"}, code: exitFailed, out: []string{"no answer from", "1 sent, 0 answered, 100 % lost\n"},
			ping: func(_ context.Context, _ string, _ int, out func(PingReply)) error {
				out(PingReply{Seq: 1, Lost: true})
				return nil
			},
		},
		{
			name: "until direct", args: []string{"edge-a", "--until-direct"}, out: []string{"seq=1", "seq=2", "2 sent, 2 answered"},
			ping: func(ctx context.Context, _ string, n int, out func(PingReply)) error {
				out(reply(1, PathRelay))
				out(reply(2, PathDirect))
				<-ctx.Done() // the agent hears that nobody listens any more
				return ctx.Err()
			},
		},
		{
			name: "never direct", args: []string{"edge-a", "--until-direct", "-c", "1"}, code: exitFailed,
			out: []string{"1 sent, 1 answered", "\nthe path stays relay via hub-gw: both NATs are hard?\n"},
			ping: func(_ context.Context, _ string, _ int, out func(PingReply)) error {
				last := reply(1, PathRelay)
				last.Path.Via, last.Path.Why = []string{"hub-gw"}, "both NATs are hard\x1b"
				out(last)
				return nil
			},
		},
		{
			name: "never direct, last lost", args: []string{"edge-a", "--until-direct", "-c", "2"}, code: exitFailed,
			out: []string{"2 sent, 1 answered", "\nthere is no path: the hub is silent\n"},
			ping: func(_ context.Context, _ string, _ int, out func(PingReply)) error {
				out(reply(1, PathRelay))
				out(PingReply{Seq: 2, Lost: true, Path: Path{Kind: PathNone, Why: "the hub is silent"}})
				return nil
			},
		},
		{
			name: "never direct, no reason", args: []string{"edge-a", "--until-direct", "-c", "1"}, code: exitFailed,
			out: []string{"\nthe path stays relay-tls\n"},
			ping: func(_ context.Context, _ string, _ int, out func(PingReply)) error {
				out(reply(1, PathRelayTLS))
				return nil
			},
		},
		{
			name: "unknown", args: []string{"a b&c"}, code: exitFailed, errIn: []string{"corax: ping a b&c: no peer, node or address of that name\n"},
			ping: func(_ context.Context, target string, _ int, _ func(PingReply)) error {
				if target != "a b&c" {
					return fmt.Errorf("the target arrived as %q", target)
				}
				return errNoTarget
			},
		},
		{
			name: "error in the middle", args: []string{"edge-a"}, code: exitFailed, out: []string{"seq=1"}, errIn: []string{"corax: ping edge-a: the peer is gone\n"},
			ping: func(_ context.Context, _ string, _ int, out func(PingReply)) error {
				out(reply(1, PathDirect))
				return errors.New("the peer is gone")
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.ping = tt.ping
			code, stdout, stderr := corax(t, append([]string{"ping", "--socket", socket}, tt.args...)...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			for _, want := range tt.out {
				if !strings.Contains(stdout, want) {
					t.Errorf("%q is not in\n%s", want, stdout)
				}
			}
			for _, want := range tt.errIn {
				if !strings.Contains(stderr, want) {
					t.Errorf("%q is not in\n%s", want, stderr)
				}
			}
			if len(tt.errIn) == 0 && stderr != "" {
				t.Errorf("stderr: %s", stderr)
			}
		})
	}
}
