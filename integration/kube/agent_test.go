//go:build linux

package kube_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/control"
	"corax/control/kube"
	"corax/integration/kube/cluster"
)

// agentClient is an agent's side of the cluster, run as one node's agent.
type agentClient struct {
	*kube.Client
	t         *testing.T
	snapshots chan control.Snapshot
	stop      func()
}

// startClient runs one with a state directory that outlives it.
func startClient(t *testing.T, kubeconfig, node, dir string) agentClient {
	t.Helper()
	a := agentClient{t: t, snapshots: make(chan control.Snapshot, 1000)}
	var err error
	a.Client, err = kube.New(kube.Config{
		Kubeconfig: kubeconfig, Node: node, StateDir: dir, EnableTunnel: true, EnableProxy: true,
		Update: func(s control.Snapshot) { a.snapshots <- s },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	a.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the client of %s ended with: %v", node, err)
		}
		done <- nil
	}
	t.Cleanup(a.stop)
	return a
}

// until waits for a snapshot for which ok holds.
func (a agentClient) until(within time.Duration, what string, ok func(control.Snapshot) bool) control.Snapshot {
	a.t.Helper()
	deadline := time.After(within)
	for {
		select {
		case s := <-a.snapshots:
			if ok(s) {
				return s
			}
		case <-deadline:
			a.t.Fatalf("no snapshot with %s within %v; state %+v", what, within, a.State())
		}
	}
}

// TestAgentOutlivesAPIServer stops the API server, restarts an agent meanwhile,
// and starts the API server again with nothing and with news to tell.
func TestAgentOutlivesAPIServer(t *testing.T) {
	c := cluster.Start(t, cluster.Options{})
	seed(t, c, presets()[0])
	armed(t, userOf(t, c.AgentConfig(t, "edge-a-gw", "corax-agent")))
	admin := gatewaysOf(t, c.Config())
	if err := admin.Delete(t.Context(), "probe", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	kubeconfig, dir := c.Kubeconfig(t, c.AgentConfig(t, "edge-a-gw", "corax-agent")), t.TempDir()

	a := startClient(t, kubeconfig, "edge-a-gw", dir)
	a.Publish(kube.Entry{PublicKey: keyOf("c")})
	a.Carry(true, "")
	before := a.until(time.Minute, "the published key", func(s control.Snapshot) bool {
		for _, g := range s.Gateways {
			for _, e := range g.Spec.Endpoints {
				if e.NodeName == "edge-a-gw" && e.Config["publicKey"] == keyOf("c") {
					return true
				}
			}
		}
		return false
	})
	c.StopAPI(t)
	cluster.Eventually(t, time.Minute, "the outage in the state", func(context.Context) error {
		if s := a.State(); s.Connected || len(s.Problems()) != 1 {
			return fmt.Errorf("state %+v", s)
		}
		return nil
	})
	a.stop()

	a = startClient(t, kubeconfig, "edge-a-gw", dir)
	again := a.until(10*time.Second, "what was known", func(control.Snapshot) bool { return true })
	if d := cmp.Diff(before.Gateways, again.Gateways); d != "" {
		t.Errorf("the agent started with another state: %s", d)
	}
	a.Publish(kube.Entry{PublicKey: keyOf("c")})
	a.Carry(true, "")
	cluster.Eventually(t, time.Minute, "the state that says where this comes from", func(context.Context) error {
		if ps := a.State().Problems(); len(ps) != 1 || !strings.Contains(ps[0], "kept on disk") {
			return fmt.Errorf("problems %q", ps)
		}
		return nil
	})

	c.StartAPI(t)
	mark := c.Mark(t)
	cluster.Eventually(t, time.Minute, "the connection", func(context.Context) error {
		if s := a.State(); !s.Connected || !s.Recalled.IsZero() || len(s.Problems()) != 0 {
			return fmt.Errorf("state %+v", s)
		}
		return nil
	})
	if err := admin.merge(t.Context(), "edge-b", object{"metadata": object{"annotations": object{"corax.io/epoch": "7"}}}); err != nil {
		t.Fatal(err)
	}
	a.until(30*time.Second, "the news", func(s control.Snapshot) bool {
		for _, g := range s.Gateways {
			if g.Metadata.Name == "edge-b" {
				return g.Metadata.Annotations["corax.io/epoch"] == "7"
			}
		}
		return false
	})
	for _, w := range c.Writes(t, mark, func(w cluster.Write) bool { return strings.HasSuffix(w.User, ":corax-agent") }) {
		if w.Resource != "leases" {
			t.Errorf("a write that says nothing new: %v", w)
		}
	}
}

// TestAgentFollowsSettings changes raven-cfg under a running agent.
func TestAgentFollowsSettings(t *testing.T) {
	c := cluster.Start(t, cluster.Options{})
	seed(t, c, presets()[0])
	kubeconfig := c.Kubeconfig(t, c.AgentConfig(t, "edge-a-gw", "corax-agent"))
	a := startClient(t, kubeconfig, "edge-a-gw", "")
	a.until(time.Minute, "the chart's switches", func(s control.Snapshot) bool { return s.EnableProxy && !s.EnableTunnel })

	cms := c.Client.CoreV1().ConfigMaps("kube-system")
	edit := func(key, value string) {
		t.Helper()
		cm, err := cms.Get(t.Context(), "raven-cfg", metav1.GetOptions{})
		if err == nil {
			cm.Data[key] = value
			_, err = cms.Update(t.Context(), cm, metav1.UpdateOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	edit("enable-l3-tunnel", "true")
	a.until(30*time.Second, "the tunnel on", func(s control.Snapshot) bool { return s.EnableTunnel })
	edit("acl-entry", "100.64.0.0/10,192.0.2.0/24")
	a.until(30*time.Second, "an allow list", func(s control.Snapshot) bool { return len(s.AllowSources) == 2 })
	edit("acl-entry", "100.64.0.0/10,everybody")
	s := a.until(30*time.Second, "a problem", func(s control.Snapshot) bool { return len(s.Problems) == 1 })
	if len(s.AllowSources) != 2 {
		t.Errorf("a bad list replaced a good one by %v", s.AllowSources)
	}
	if err := cms.Delete(t.Context(), "raven-cfg", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	a.until(30*time.Second, "what counts without raven-cfg", func(s control.Snapshot) bool {
		return s.EnableTunnel && s.EnableProxy && len(s.AllowSources) == 0 && len(s.Problems) == 0
	})
}

// TestLeaseGoesWithTheOtherCandidate: a node that is the only candidate keeps
// none, and does not leave one behind that says it cannot carry.
func TestLeaseGoesWithTheOtherCandidate(t *testing.T) {
	c := cluster.Start(t, cluster.Options{})
	seed(t, c, presets()[0])
	armed(t, userOf(t, c.AgentConfig(t, "edge-a-gw", "corax-agent")))
	a := startClient(t, c.Kubeconfig(t, c.AgentConfig(t, "edge-a-gw", "corax-agent")), "edge-a-gw", "")
	a.Carry(true, "")
	lease := func(ctx context.Context) error {
		_, err := c.Client.CoordinationV1().Leases("corax-leases").Get(ctx, "edge-a-gw", metav1.GetOptions{})
		return err
	}
	cluster.Eventually(t, time.Minute, "the Lease", lease)
	admin := gatewaysOf(t, c.Config())
	only := object{"spec": object{"endpoints": []any{endpoint("edge-a-gw", "tunnel", "underNAT", true)}}}
	if err := admin.merge(t.Context(), "edge-a", only); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, time.Minute, "no Lease", func(ctx context.Context) error {
		err := lease(ctx)
		switch {
		case err == nil:
			return errors.New("there still is one")
		case apierrors.IsNotFound(err):
			return nil
		}
		return err
	})
}
