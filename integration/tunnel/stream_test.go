//go:build linux

package tunnel_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"corax/integration/lab"
)

const (
	streamPort = 7200
	// streamPause is how much longer than the control stream a stream may stand
	// still that nothing happens to. One lost segment costs 0.2 s (TCP's shortest
	// retransmission timeout), a lost session 5 s (WireGuard's retry).
	streamPause = time.Second
)

// stream is a long TCP transfer between the pods of two nodes.
type stream struct {
	*lab.Flow
	name string
	over []string // the nodes whose agents carry it
}

// serveStreams makes every pod of the topology a destination for streams.
func serveStreams(t *testing.T, topo *lab.Topology) {
	t.Helper()
	for _, n := range topo.Nodes() {
		for _, p := range n.Pods {
			if _, err := p.Serve(streamPort); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// startStream starts a stream between the first pods of two nodes; it ends with
// the test.
func startStream(t *testing.T, topo *lab.Topology, from, to string, v6 bool) *stream {
	t.Helper()
	a, b := topo.Node(from), topo.Node(to)
	s := &stream{name: from + " to " + to}
	if da, db := domainOf(topo, a), domainOf(topo, b); da != db {
		s.over = []string{from, da.Gateway().Name, db.Gateway().Name, to}
	}
	ip := b.Pods[0].IP
	if v6 {
		s.name += " (IPv6)"
		ip = b.Pods[0].IP6
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var err error
	if s.Flow, err = a.Pods[0].StartFlow(ctx, netip.AddrPortFrom(ip, streamPort)); err != nil {
		t.Fatalf("stream from %s: %v", s.name, err)
	}
	t.Cleanup(func() { _, _ = s.Stop() })
	return s
}

// startControl starts a stream within a domain, which no agent carries: what it
// suffers is the machine's doing.
func startControl(t *testing.T, topo *lab.Topology) *stream {
	t.Helper()
	return startStream(t, topo, "cloud-1", "cloud-gw", false)
}

// carriedBy reports whether the agent of one of the nodes carries the stream.
func (s *stream) carriedBy(nodes ...string) bool {
	return slices.ContainsFunc(nodes, func(n string) bool { return slices.Contains(s.over, n) })
}

// moving waits until every stream has got some blocks back.
func moving(t *testing.T, streams []*stream) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, s := range streams {
		for range 10 {
			if err := s.WaitMove(ctx); err != nil {
				t.Fatalf("stream from %s: %v", s.name, err)
			}
		}
	}
}

// flowing is moving, and forgets the pauses until then.
func flowing(t *testing.T, streams []*stream) {
	t.Helper()
	moving(t, streams)
	for _, s := range streams {
		s.Reset()
	}
}

// steady fails the test when a stream broke, or stood still since its last Reset
// for longer than streamPause and what the control stream did.
func steady(t *testing.T, control *stream, streams []*stream) {
	t.Helper()
	noise, err := control.Result()
	if err != nil {
		t.Fatalf("control stream: %v", err)
	}
	limit := streamPause + noise.Longest
	for _, s := range streams {
		switch r, err := s.Result(); {
		case err != nil:
			t.Errorf("stream from %s: %v", s.name, err)
		case r.Longest > limit:
			t.Errorf("stream from %s stood still for %v, at most %v is noise", s.name, r.Longest, limit)
		default:
			t.Logf("stream from %s: longest pause %v, control %v", s.name,
				r.Longest.Round(time.Millisecond), noise.Longest.Round(time.Millisecond))
		}
	}
}

// moveAgain fails the test unless every stream moves before the deadline, and
// logs when it did.
func moveAgain(t *testing.T, streams []*stream, since time.Time, within time.Duration) {
	t.Helper()
	ctx, cancel := context.WithDeadline(t.Context(), since.Add(within))
	defer cancel()
	type result struct {
		s    *stream
		took time.Duration
		err  error
	}
	results := make(chan result)
	for _, s := range streams {
		go func() {
			err := s.WaitMove(ctx)
			results <- result{s, time.Since(since), err}
		}()
	}
	for range streams {
		r := <-results
		if r.err != nil {
			t.Errorf("stream from %s after %v: %v", r.s.name, r.took.Round(time.Millisecond), r.err)
			continue
		}
		t.Logf("stream from %s moves after %v", r.s.name, r.took.Round(time.Millisecond))
	}
}

// domainOf returns the domain of a node.
func domainOf(topo *lab.Topology, n *lab.Node) *lab.Domain {
	for _, d := range topo.Domains {
		if slices.Contains(d.Nodes, n) {
			return d
		}
	}
	return nil
}
