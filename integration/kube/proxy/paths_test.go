//go:build linux

package proxy_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"corax/integration/kube/cluster"
)

const (
	// atOnce is how long a new request may take while paths change under it.
	atOnce = 10 * time.Second
	// endWithin is how long a stream may stay open whose gateway node is gone: three
	// keepalives 15 s apart, and some.
	endWithin = 75 * time.Second
)

// counting is a kubectl logs -f of a Pod that counts: what is missing shows.
type counting struct {
	*running
	node string
	last int
}

// count starts it and waits for the first line.
func (w *world) count(t *testing.T, node string) *counting {
	t.Helper()
	c := &counting{running: w.start(t, "logs", "-f", "--tail=1", pod(node), "-c", "main"), node: node}
	c.last = c.number(t, c.line(t, 15*time.Second))
	return c
}

func (c *counting) number(t *testing.T, line string) int {
	t.Helper()
	text, ok := strings.CutPrefix(line, c.node+" ")
	n, err := strconv.Atoi(text)
	if !ok || err != nil {
		t.Fatalf("%s wrote %q", c.name, line)
	}
	return n
}

// goOn demands that the stream is alive, and that no line is missing until now.
func (c *counting) goOn(t *testing.T) {
	t.Helper()
	for more := len(c.lines) + 5; more > 0; more-- {
		n := c.number(t, c.line(t, 20*time.Second))
		if n != c.last+1 {
			t.Fatalf("%s: after %d came %d", c.name, c.last, n)
		}
		c.last = n
	}
}

// outcome waits until the stream either goes on, for some lines more than are
// waiting, or has ended. That it broke kubectl cannot tell: the API server passes
// logs on and takes a fault of the kubelet's connection for their end.
func (c *counting) outcome(t *testing.T, within time.Duration) (alive bool) {
	t.Helper()
	deadline := time.After(within)
	for more := len(c.lines) + 20; more > 0; more-- {
		select {
		case _, ok := <-c.lines:
			if !ok {
				_ = c.end(t, within)
				return false
			}
		case <-deadline:
			t.Errorf("%s hangs: it neither wrote nor ended within %v", c.name, within)
			return false
		}
	}
	return true
}

// direct is the log of a Pod as the API server gets it from the kubelet: over a TLS
// connection that passes through.
func (w *world) direct(t *testing.T, node string) io.ReadCloser {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(w.Cluster.Issue(t, "reads-logs", "system:masters"))
	must(t, err)
	transport := w.newClient().Transport.(*http.Transport)
	transport.TLSClientConfig = &tls.Config{RootCAs: w.roots, Certificates: []tls.Certificate{cert}}
	resp, err := (&http.Client{Transport: transport}).Get("https://" + node + ":10250/containerLogs/default/" + pod(node) + "/main?follow=true")
	must(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("logs of %s: %s", node, resp.Status)
	}
	return resp.Body
}

// broken reads a stream to its end, which must be a fault.
func broken(t *testing.T, stream io.Reader, within time.Duration) {
	t.Helper()
	end := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, stream)
		end <- err
	}()
	select {
	case err := <-end:
		if err == nil {
			t.Error("a stream whose way broke ends as if all had come")
			return
		}
		t.Logf("a stream that passed through ended: %v", err)
	case <-time.After(within):
		t.Errorf("a stream whose way broke is open after %v", within)
	}
}

// requests asks kubelets how they are until stop is called, which fails the test when
// one of them took too long or failed.
func (w *world) requests(t *testing.T, nodes ...string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var errs []error
	var longest time.Duration
	n := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ; ctx.Err() == nil; n++ {
			start := time.Now()
			err := w.ask(ctx, nodes[n%len(nodes)], atOnce)
			took := time.Since(start)
			if err != nil && ctx.Err() == nil {
				errs = append(errs, fmt.Errorf("after %v: %w", took, err))
			}
			longest = max(longest, took)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return func() {
		t.Helper()
		cancel()
		<-done
		t.Logf("%d requests, the longest took %v", n, longest.Round(time.Millisecond))
		if err := errors.Join(errs...); err != nil {
			t.Error(err)
		}
	}
}

// ask asks a kubelet how it is, over the proxy.
func (w *world) ask(ctx context.Context, node string, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	b, err := w.raw(ctx, "/api/v1/nodes/"+node+"/proxy/healthz")
	if err == nil && b != "ok" {
		err = fmt.Errorf("its health is %q", b)
	}
	return err
}

// waitPath waits until an edge's gateway node has paths of these kinds to all fronts:
// between an edge and a hub, the edge chooses.
func (w *world) waitPath(t *testing.T, edge string, kinds ...string) {
	t.Helper()
	cluster.Eventually(t, time.Minute, "the paths of "+edge, func(ctx context.Context) error {
		s, err := w.Agent(edge).Status(ctx)
		if err != nil {
			return err
		}
		for _, name := range fronts() {
			p := s.Peer(name)
			if p == nil {
				return fmt.Errorf("no peer %s", name)
			}
			if !slices.Contains(kinds, p.Path.Kind) {
				return fmt.Errorf("the path to %s is %s by %v: %s", name, p.Path.Kind, p.Path.Via, p.Path.Why)
			}
		}
		return nil
	})
}

// testPathChange takes UDP between an edge and the cloud away, so that all goes over
// TLS, and gives it back, while streams run.
func (w *world) testPathChange(t *testing.T) {
	const node = "edge-a-1"
	router := w.Domains[1].Router
	var logs []*counting
	for range 3 {
		logs = append(logs, w.count(t, node))
	}
	var hubs []netip.Addr // UDP over IPv6 would do, too
	for _, name := range fronts() {
		hubs = append(hubs, w.Node(name).IP, w.Node(name).IP6())
	}
	defer router.Block()
	stop := w.requests(t, node)
	for _, change := range []struct {
		name  string
		do    func()
		kinds []string
	}{
		{"no UDP", func() { router.Block(hubs...) }, []string{"relay", "relay-tls"}},
		{"UDP again", func() { router.Block() }, []string{"direct"}},
	} {
		file := filepath.Join(t.TempDir(), "file")
		sum := randomFile(t, file, 100<<20)
		cp := w.start(t, "cp", "--retries=0", "-c", "main", file, pod(node)+":/tmp/copy")
		w.waitCopied(t, node)
		change.do()
		select {
		case <-cp.Done():
			t.Fatal("the file was copied before the path changed")
		default:
		}
		w.waitPath(t, node, change.kinds...)
		if code := cp.end(t, 2*time.Minute); code != 0 {
			t.Errorf("%s: kubectl cp ended with code %d: %s", change.name, code, cp.stderr())
		}
		if got := w.kubectl(t, "exec", pod(node), "-c", "main", "--", "sha256sum", "/tmp/copy"); !strings.HasPrefix(got, sum) {
			t.Errorf("%s: the sum there is %s, not %s", change.name, got, sum)
		}
		for _, c := range logs {
			c.goOn(t)
		}
		w.kubectl(t, "exec", pod(node), "-c", "main", "--", "rm", "/tmp/copy")
	}
	stop()
}

// waitCopied waits until a copy has begun to arrive.
func (w *world) waitCopied(t *testing.T, node string) {
	t.Helper()
	cluster.Eventually(t, time.Minute, "the copy", func(context.Context) error {
		out, err := w.Cluster.Kubectl(t, nil, "exec", pod(node), "-c", "main", "--", "test", "-s", "/tmp/copy")
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
}

// waitOwnWay waits until each front reaches an active gateway node by way of itself:
// a front tries one that failed lately, as while its path changed, after all others.
func (w *world) waitOwnWay(t *testing.T, node string) {
	t.Helper()
	s, err := w.Agent(node).Status(t.Context())
	must(t, err)
	for _, front := range fronts() {
		cluster.Eventually(t, time.Minute, "the way by "+front+" and "+node+" to itself", func(ctx context.Context) error {
			c, err := w.Control.DialTCP(ctx, netip.AddrPortFrom(w.Node(front).IP, 10281))
			if err != nil {
				return err
			}
			defer func() { _ = c.Close() }()
			if err := tls.Client(c, &tls.Config{ServerName: node, RootCAs: w.roots}).HandshakeContext(ctx); err != nil {
				return err
			}
			for _, stream := range w.streams(t, front) {
				if stream.Caller.String() == c.LocalAddr().String() {
					if stream.Via != s.OverlayAddress {
						return fmt.Errorf("it goes by %s, not %s", stream.Via, s.OverlayAddress)
					}
					return nil
				}
			}
			return errors.New("the front does not list the stream")
		})
	}
}

// countOver counts over one of the gateway nodes. The API server may take a connection
// that it has, over another one.
func (w *world) countOver(t *testing.T, gateway, node string) *counting {
	t.Helper()
	for range 20 {
		c := w.count(t, node)
		before := w.delivered(t, gateway, node)
		c.goOn(t)
		if w.delivered(t, gateway, node) > before {
			return c
		}
	}
	t.Fatalf("no logs -f of %s goes over %s", node, gateway)
	return nil
}

// testGatewayDeath kills the gateway node of an edge that streams go through.
func (w *world) testGatewayDeath(t *testing.T) {
	const node = "edge-a-1" // active, so it is its own way in
	w.waitOwnWay(t, node)
	logs := w.countOver(t, node, node)
	// One that sends, too: a copy that goes on for ever. The shell must outlive cat: when
	// nobody holds standard output any more the kubelet ends the connection.
	copying := w.start(t, "exec", "-i", pod(node), "-c", "main", "--", "sh", "-c", "echo reading; cat >/dev/null; echo read")
	go func() { // ends when the pipe breaks
		for block := make([]byte, 64<<10); ; {
			if _, err := copying.in.Write(block); err != nil {
				return
			}
		}
	}()
	passed := w.direct(t, node)
	other := w.count(t, "edge-b-1")
	copying.line(t, endWithin)
	must(t, w.Agent(node).Kill())
	killed := time.Now()
	if err := w.ask(t.Context(), node, atOnce); err != nil {
		t.Errorf("a new request, after %v: %v", time.Since(killed).Round(time.Millisecond), err)
	} else {
		t.Logf("a new request took another way, %v after the death", time.Since(killed).Round(time.Millisecond))
	}
	stop := w.requests(t, node)
	if code := copying.end(t, endWithin); code == 0 || copying.stderr() == "" {
		t.Errorf("the copy ended with code %d and says %q", code, copying.stderr())
	} else {
		t.Logf("the copy ended after %v: %s", time.Since(killed).Round(time.Second), copying.stderr())
	}
	if logs.outcome(t, endWithin) {
		t.Error("logs -f goes on although its gateway node is dead")
	}
	t.Logf("logs -f ended after %v", time.Since(killed).Round(time.Second))
	broken(t, passed, endWithin)
	stop()
	other.goOn(t)
	must(t, w.Agent(node).Start())
	w.waitProxied(t)
}

// testHubDeath kills one of the fronts, which is a hub of all edges.
func (w *world) testHubDeath(t *testing.T) {
	var logs []*counting
	for range 4 {
		logs = append(logs, w.count(t, "edge-a-1"), w.count(t, "edge-b-1"))
	}
	must(t, w.Agent("cloud-gw").Kill())
	killed := time.Now()
	cluster.Eventually(t, 20*time.Second, "ten requests one after the other", func(ctx context.Context) error {
		for i := range 10 {
			if err := w.ask(ctx, kubeletNodes()[i%3], 3*time.Second); err != nil {
				return err
			}
		}
		return nil
	})
	t.Logf("all requests are answered %v after the death", time.Since(killed).Round(time.Millisecond))
	alive := 0
	for _, c := range logs {
		if c.outcome(t, endWithin) {
			alive++
		}
	}
	t.Logf("%d of %d streams went over the other front and go on", alive, len(logs))
	must(t, w.Agent("cloud-gw").Start())
	w.waitProxied(t)
}
