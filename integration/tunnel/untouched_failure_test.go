//go:build linux

package tunnel_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"testing"
	"time"

	"corax/integration/lab"
)

// TestFailedStart: an agent that cannot start leaves its host as it found it.
// What a predecessor left stays too: it keeps the pods' packets in until an
// agent works again.
func TestFailedStart(t *testing.T) {
	topo := lab.Standard(lab.ForTest(t), lab.Options{Edges: 1, Nodes: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if _, err := topo.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	h := newHosts(t, topo, false)

	release := takeSockets(t, topo)
	h.fails(ctx, t)
	h.same(t, "failed to start", h.before)
	release()

	h.each(t, (*lab.Agent).Start)
	h.ready(ctx, t)
	running := h.check(t, "running")
	h.each(t, (*lab.Agent).Kill)
	release = takeSockets(t, topo)
	h.fails(ctx, t)
	h.same(t, "failed to start after a crash", running)
	release()

	h.each(t, (*lab.Agent).Start)
	h.ready(ctx, t)
	h.same(t, "started again", running)
	h.each(t, (*lab.Agent).Stop)
	h.same(t, "stopped", h.before)
}

// takeSockets answers at the path of every agent's local API, as another agent
// would.
func takeSockets(t *testing.T, topo *lab.Topology) (release func()) {
	t.Helper()
	var closers []func() error
	for _, a := range topo.Agents() {
		if err := os.Remove(a.Socket()); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a dead agent
			t.Fatal(err)
		}
		ln, err := net.Listen("unix", a.Socket())
		if err != nil {
			t.Fatal(err)
		}
		closers = append(closers, ln.Close)
	}
	return func() {
		for _, c := range closers {
			if err := c(); err != nil {
				t.Error(err)
			}
		}
	}
}

// fails starts every agent and wants it to end by itself, with an error.
func (h *hosts) fails(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, a := range h.topo.Agents() {
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-a.Process().Done():
		case <-ctx.Done():
			t.Fatalf("the agent on %s runs without its local API", a.Host.Name)
		}
		if err := a.Stop(); err == nil {
			t.Errorf("the agent on %s ended with exit code 0", a.Host.Name)
		}
	}
}
