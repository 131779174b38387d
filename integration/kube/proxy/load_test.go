//go:build linux

package proxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"corax/integration/kube/cluster"
)

// beside is how many streams run beside one that nobody reads.
const beside = 500

// flood answers with bytes without end.
func flood(w http.ResponseWriter, r *http.Request) {
	block := make([]byte, 64<<10)
	for r.Context().Err() == nil {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

// ticks answers with the time, four times a second.
func ticks(w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for r.Context().Err() == nil {
		if _, err := fmt.Fprintf(w, "%d\n", time.Now().UnixNano()); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
		case <-tick.C:
		}
	}
}

// testStall stops reading one stream while others run through the same nodes.
func (w *world) testStall(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	token := w.reader(t)
	var worst atomic.Int64 // nanoseconds from a server to us, since it was taken
	var came atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	started := make(chan struct{}, beside)
	for range beside {
		group.Go(func() error { return w.follow(ctx, token, started, &worst, &came) })
	}
	for range beside {
		select {
		case <-started:
		case <-ctx.Done():
			t.Fatal(group.Wait())
		case <-time.After(time.Minute):
			t.Fatal("not all streams have begun")
		}
	}
	measure := func() time.Duration {
		worst.Store(0)
		came.Store(0)
		deadline := time.After(time.Minute)
		for came.Load() < 10*beside { // 2.5 s
			select {
			case <-deadline:
				t.Fatalf("only %d lines came in a minute", came.Load())
			case <-time.After(10 * time.Millisecond):
			}
		}
		return time.Duration(worst.Load())
	}
	before := measure()
	rss := w.memory(t)
	resp, err := w.open(ctx, exporterURL("edge-a-1", "/flood"), token)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	_, err = io.ReadFull(resp.Body, make([]byte, 1<<20)) // and no more
	must(t, err)
	after := measure()
	t.Logf("of %d streams the slowest line took %v, beside a stalled one %v", beside, before, after)
	// A line waits for nothing but a busy machine; behind a stalled stream it would
	// wait for ever.
	if after > 2*time.Second+2*before {
		t.Errorf("a stalled stream holds up others: %v, before %v", after, before)
	}
	for name, now := range w.memory(t) {
		t.Logf("agent of %s: %.1f MB, before the stall %.1f MB", name, float64(now)/1e6, float64(rss[name])/1e6)
		if now > rss[name]+32<<20 {
			t.Errorf("the agent of %s has grown from %d to %d bytes", name, rss[name], now)
		}
	}
	cancel()
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// follow reads a stream of ticks until ctx is done.
func (w *world) follow(ctx context.Context, token string, started chan<- struct{}, worst, came *atomic.Int64) error {
	resp, err := w.open(ctx, exporterURL("edge-a-1", "/ticks"), token)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s: %s", resp.Status, b)
	}
	scan := bufio.NewScanner(resp.Body)
	for first := true; scan.Scan(); first = false {
		if first {
			started <- struct{}{}
		}
		sent, err := strconv.ParseInt(scan.Text(), 10, 64)
		if err != nil {
			return err
		}
		late := time.Now().UnixNano() - sent
		for old := worst.Load(); late > old && !worst.CompareAndSwap(old, late); old = worst.Load() {
		}
		came.Add(1)
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("a stream ended: %w", scan.Err())
}

// connections is how many connections come and go.
func connections() int {
	if os.Getenv(soakEnv) != "" {
		return 10000
	}
	return 2000
}

// testConnections opens and closes connections of both kinds, and finds the agents
// as they were before.
func (w *world) testConnections(t *testing.T) {
	token := w.reader(t)
	run := func(n int) {
		t.Helper()
		group, ctx := errgroup.WithContext(t.Context())
		group.SetLimit(16)
		for i := range n {
			node := []string{"edge-a-1", "edge-b-1"}[i%2]
			group.Go(func() error {
				if i%4 < 2 {
					return w.passThrough(ctx, node)
				}
				b, err := w.get(ctx, exporterURL(node, "/metrics"), token)
				if err == nil && !strings.Contains(b, node) {
					err = fmt.Errorf("%s answers for %s", b, node)
				}
				return err
			})
		}
		must(t, group.Wait())
	}
	run(100) // so that all has been made that stays
	before := w.held(t)
	start := time.Now()
	run(connections())
	t.Logf("%d connections in %v", connections(), time.Since(start).Round(time.Millisecond))
	cluster.Eventually(t, time.Minute, "what is left of them", func(context.Context) error {
		after := w.held(t)
		for name, was := range before {
			if now := after[name]; now.files > was.files+8 || now.goroutines > was.goroutines+16 {
				return fmt.Errorf("the agent of %s has %+v, before %+v", name, now, was)
			}
		}
		return nil
	})
}

// passThrough makes a TLS connection to a kubelet by way of the fronts' Service; the
// certificate says whether it is the right one.
func (w *world) passThrough(ctx context.Context, node string) error {
	front, err := w.Front(ctx)
	if err != nil {
		return err
	}
	return w.shake(ctx, netip.AddrPortFrom(front, 10250), node)
}

// shake makes a TLS connection to a kubelet by way of a front.
func (w *world) shake(ctx context.Context, front netip.AddrPort, node string) error {
	c, err := w.Control.DialTCP(ctx, front)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	conn := tls.Client(c, &tls.Config{ServerName: node, RootCAs: w.roots})
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("%s: %w", node, err)
	}
	return nil
}

// held is what an agent may leak.
type held struct{ files, goroutines int }

// watched are the agents that carry the streams of the tests.
func watched() []string { return []string{"cloud-gw", "cloud-2", "edge-a-1", rootless} }

func (w *world) held(t *testing.T) map[string]held {
	t.Helper()
	all := make(map[string]held)
	for _, name := range watched() {
		a := w.Agent(name)
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", a.Process().PID()))
		must(t, err)
		m, err := a.Metrics(t.Context())
		must(t, err)
		all[name] = held{len(files), int(m["go_goroutines"])}
	}
	return all
}

// memory is the resident memory of the agents, in bytes.
func (w *world) memory(t *testing.T) map[string]int {
	t.Helper()
	all := make(map[string]int)
	for _, name := range watched() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", w.Agent(name).Process().PID()))
		must(t, err)
		pages, err := strconv.Atoi(strings.Fields(string(b))[1])
		must(t, err)
		all[name] = pages * os.Getpagesize()
	}
	return all
}

// reader returns the token of one who may read from nodes.
func (w *world) reader(t *testing.T) string {
	t.Helper()
	w.Cluster.ApplyYAML(t, reader)
	return w.Cluster.AccountConfig(t, "reader").BearerToken
}

// exporterURL is the URL of a node's exporter by the node's name.
func exporterURL(node, path string) string {
	return fmt.Sprintf("http://%s:%d%s", node, exporterPort, path)
}

// newClient returns an HTTP client where the control plane is; node names lead to
// the Service of the fronts.
func (w *world) newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			name, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			if w.Node(name) != nil {
				front, err := w.Front(ctx)
				if err != nil {
					return nil, err
				}
				address = net.JoinHostPort(front.String(), port)
			}
			return w.Control.Dial(ctx, network, address)
		},
	}}
}

func (w *world) readRoots(t *testing.T) *x509.CertPool {
	t.Helper()
	b, err := os.ReadFile(w.Cluster.CAFile())
	must(t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b)
	return pool
}
