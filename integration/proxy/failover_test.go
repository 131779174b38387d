//go:build linux

package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"

	"corax/integration/lab"
)

// TestFailover has a domain with two gateway nodes: when one dies, requests for
// nodes go over the other one. Then the domain leaves proxy mode.
func TestFailover(t *testing.T) {
	w := &world{Topology: lab.Standard(lab.ForTest(t), lab.Options{NoCapture: true}), t: t, ca: newAuthority(t)}
	w.front = w.Node("cloud-gw")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var err error
	w.keys, err = w.Prepare(ctx)
	must(t, err)
	for _, d := range w.Domains {
		must(t, w.write(d))
	}
	w.endpoints(w.Domains[1], 2)
	w.Agent(w.front.Name).SetArgs("--proxy-connect-socket=" + w.socket())
	w.echoes(w.Node("edge-a-gw"))
	w.echoes(w.Node("edge-a-1"))
	g, ctx := errgroup.WithContext(ctx)
	for _, a := range w.Agents() {
		must(t, a.Start())
		g.Go(func() error { return a.WaitReady(ctx) })
	}
	must(t, g.Wait())
	once := func(node string) error {
		c, _, err := w.connect(node, 9100)
		if err == nil {
			_ = c.Close()
		}
		return err
	}
	for _, node := range []string{"edge-a-gw", "edge-a-1"} {
		eventually(t, 30*time.Second, node, func() error { return once(node) })
	}

	must(t, w.Agent("edge-a-1").Kill())
	started := time.Now()
	must(t, once("edge-a-1"))
	if d := time.Since(started); d > 5*time.Second {
		t.Errorf("the first request after the death of a gateway node took %v", d)
	}
	started = time.Now()
	must(t, once("edge-a-1"))
	t.Logf("the second request took %v", time.Since(started))

	c, r, err := w.connect("edge-a-gw", 9100)
	must(t, err)
	w.endpoints(w.Domains[1], 0)
	started = time.Now()
	_ = c.SetReadDeadline(started.Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, r); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a stream goes on although proxy mode has ended for its node")
	}
	t.Logf("the stream ended %v after proxy mode", time.Since(started))
	_ = c.Close()
	eventually(t, 20*time.Second, "an unknown node", func() error {
		if err := once("edge-a-gw"); !isRefused(err, http.StatusNotFound) {
			return fmt.Errorf("%w", err)
		}
		return nil
	})
	w.endpoints(w.Domains[1], 1)
	eventually(t, 30*time.Second, "proxy mode is back", func() error { return once("edge-a-gw") })
}

func isRefused(err error, status int) bool {
	r, ok := errors.AsType[*refused](err)
	return ok && r.status == status
}

// endpoints lists all nodes of a domain as its proxy endpoints, of which so many are
// to be active.
func (w *world) endpoints(d *lab.Domain, active int) {
	w.t.Helper()
	path := filepath.Join(w.Gateways, d.Name+".yaml")
	text, err := os.ReadFile(path)
	must(w.t, err)
	var o map[string]any
	must(w.t, yaml.Unmarshal(text, &o))
	spec := o["spec"].(map[string]any)
	spec["proxyConfig"] = map[string]any{"Replicas": active}
	var all []any
	for _, n := range d.Nodes {
		all = append(all, map[string]any{
			"nodeName": n.Name, "type": "proxy", "underNAT": true, "config": map[string]any{"publicKey": w.keys[n.Name]},
		})
	}
	spec["endpoints"] = all
	text, err = yaml.Marshal(o)
	must(w.t, err)
	must(w.t, os.WriteFile(path+".new", text, 0o644))
	must(w.t, os.Rename(path+".new", path))
}
