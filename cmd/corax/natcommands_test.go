package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestPathsOverSocket(t *testing.T) {
	f := &fakeAgent{paths: func(name string) (Paths, error) {
		switch name {
		case "edge b&c":
			return samplePaths(), nil
		case "bare":
			return Paths{Candidates: []PathCandidate{{Kind: PathDirect}}}, nil
		case "broken":
			return Paths{}, errors.New("the machine is gone")
		}
		return Paths{}, errNoTarget
	}}
	socket, _ := startLocal(t, f)
	for _, tt := range []struct {
		name        string
		peer        string
		code        int
		out, stderr string
	}{
		{"table", "edge b&c", exitOK, "relay via cloud-1, cloud-2 (203.0.113.1:4500)", ""},
		{"unknown", "edge-x", exitFailed, "", "corax: paths edge-x: no peer, node or address of that name\n"},
		{"error", "broken", exitFailed, "", "corax: paths broken: the machine is gone\n"},
		{"empty", "", exitFailed, "", "corax: paths : peer is missing\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := corax(t, "paths", tt.peer, "--socket", socket)
			if code != tt.code || !strings.Contains(stdout, tt.out) || stderr != tt.stderr {
				t.Errorf("exit code %d, want %d; stderr %q, want %q; stdout:\n%s", code, tt.code, stderr, tt.stderr, stdout)
			}
		})
	}

	_, stdout, _ := corax(t, "paths", "edge b&c", "-o", "json", "--socket", socket)
	var got Paths
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(samplePaths(), got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	_, stdout, _ = corax(t, "paths", "bare", "-o", "json", "--socket", socket)
	if strings.Contains(stdout, "null") || strings.Count(stdout, `"via": []`) != 2 || !strings.Contains(stdout, `"transitions": []`) {
		t.Errorf("lists that are not there:\n%s", stdout)
	}
}

func TestNetcheckOverSocket(t *testing.T) {
	var answer Netcheck
	var fail error
	f := &fakeAgent{netcheck: func(ctx context.Context) (Netcheck, error) {
		if _, ok := ctx.Deadline(); !ok {
			return Netcheck{}, errors.New("no deadline")
		}
		return answer, fail
	}}
	socket, _ := startLocal(t, f)

	answer = sampleNetcheck()
	code, stdout, stderr := corax(t, "netcheck", "-o", "json", "--socket", socket)
	var got Netcheck
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != exitOK || stderr != "" {
		t.Fatalf("%v, exit code %d, stderr %q", err, code, stderr)
	}
	if d := cmp.Diff(sampleNetcheck(), got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}

	// What was found is no failure, whatever it is.
	answer = Netcheck{UDPBlocked: true}
	code, stdout, _ = corax(t, "netcheck", "--socket", socket)
	if code != exitOK || !strings.Contains(stdout, "blocked: no server answered") {
		t.Errorf("blocked: exit code %d\n%s", code, stdout)
	}
	if _, stdout, _ = corax(t, "netcheck", "-o", "json", "--socket", socket); strings.Contains(stdout, "null") {
		t.Errorf("lists that are not there:\n%s", stdout)
	}

	fail = errors.New("there is no tunnel port")
	code, _, stderr = corax(t, "netcheck", "--socket", socket)
	if code != exitFailed || stderr != "corax: netcheck: there is no tunnel port\n" {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}

// An agent without this machinery says so.
func TestNotAvailable(t *testing.T) {
	socket, _ := startLocal(t, &fakeAgent{})
	for _, args := range [][]string{{"paths", "edge-a"}, {"netcheck"}} {
		code, stdout, stderr := corax(t, append(args, "--socket", socket)...)
		if code != exitFailed || stdout != "" || !strings.Contains(stderr, ": not available in this agent\n") {
			t.Errorf("%v: exit code %d, %s", args, code, stderr)
		}
	}
	for request, want := range map[string]string{
		"GET /v1/paths?peer=a HTTP/1.0\r\n\r\n":  "501",
		"GET /v1/netcheck HTTP/1.0\r\n\r\n":      "501",
		"POST /v1/netcheck HTTP/1.0\r\n\r\n":     "405",
		"POST /v1/paths?peer=a HTTP/1.0\r\n\r\n": "405",
	} {
		if got := ask(t, socket, request); !strings.HasPrefix(got, "HTTP/1.0 "+want) {
			t.Errorf("%q: %q, want %s", request, got, want)
		}
	}
}

func TestCompletePeers(t *testing.T) {
	f := &fakeAgent{status: Status{Peers: []Peer{
		{Gateway: "edge-a", Node: "a-1"}, {Gateway: "edge-b", Node: "b-1"}, {Gateway: "edge-b", Node: "b-2"},
	}}}
	socket, _ := startLocal(t, f)
	for _, tt := range []struct{ command, prefix, socket, want string }{
		{"paths", "", socket, "a-1 b-1 b-2 edge-a edge-b :4"},
		{"ping", "edge-b", socket, "edge-b :4"},
		{"ping", "x", socket, ":4"},
		{"paths", "", socket + ".none", ":4"}, // no agent
	} {
		_, stdout, _ := corax(t, "__complete", tt.command, "--socket", tt.socket, tt.prefix)
		if got := strings.Join(strings.Fields(stdout), " "); got != tt.want {
			t.Errorf("%s %q: %q, want %q", tt.command, tt.prefix, got, tt.want)
		}
	}
}

func TestPathsStatusCodes(t *testing.T) {
	f := &fakeAgent{paths: func(name string) (Paths, error) {
		if name == "broken" {
			return Paths{}, errors.New("broken")
		}
		return Paths{}, errNoTarget
	}}
	socket, _ := startLocal(t, f)
	for request, want := range map[string]string{
		"GET /v1/paths HTTP/1.0\r\n\r\n":             "400",
		"GET /v1/paths?peer=x HTTP/1.0\r\n\r\n":      "404",
		"GET /v1/paths?peer=broken HTTP/1.0\r\n\r\n": "502",
	} {
		if got := ask(t, socket, request); !strings.HasPrefix(got, "HTTP/1.0 "+want) {
			t.Errorf("%q: %q, want %s", request, got, want)
		}
	}
}

// A look at the network may take longer than a request; one that takes too long
// ends with words, not with a cut connection.
func TestLongNetcheck(t *testing.T) {
	for _, tt := range []struct {
		name  string
		takes time.Duration
		err   string
	}{
		{"15s", 15 * time.Second, ""},
		{"for ever", time.Hour, "context deadline exceeded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &local{agent: agentAPI{Netcheck: func(ctx context.Context) (Netcheck, error) {
					select {
					case <-ctx.Done():
						return Netcheck{}, ctx.Err()
					case <-time.After(tt.takes):
						return Netcheck{MTU: 1408}, nil
					}
				}}}
				c := pipeClient(t, l)
				n, err := c.Netcheck(t.Context())
				if tt.err == "" && (err != nil || n.MTU != 1408) {
					t.Errorf("%+v, %v", n, err)
				}
				if tt.err != "" && (err == nil || err.Error() != tt.err) {
					t.Errorf("%v, want %q", err, tt.err)
				}
			})
		})
	}
}

// pipeClient asks l over a pipe, for use in a bubble, until the test ends.
func pipeClient(t *testing.T, l *local) *client {
	t.Helper()
	ln := pipeListener{make(chan net.Conn), make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	allow := func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, peerKey{}, caller{})
	}
	go func() { done <- serve(ctx, ln, l.api(), allow) }()
	ours, theirs := net.Pipe()
	ln.conns <- theirs
	c := newClient("unused")
	c.http.Transport = &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return ours, nil }}
	t.Cleanup(func() {
		c.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}
