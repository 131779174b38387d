//go:build linux

package kube_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"corax/control"
	"corax/control/kube"
	"corax/integration/kube/cluster"
)

// runClient runs an agent's side of the cluster in the test, as a node's agent,
// and returns it with the snapshots that it makes.
func runClient(t *testing.T, c *cluster.Cluster, node, account string) (*kube.Client, <-chan control.Snapshot) {
	t.Helper()
	snapshots := make(chan control.Snapshot, 100)
	client, err := kube.New(kube.Config{
		Kubeconfig: c.Kubeconfig(t, c.AgentConfig(t, node, account)),
		Node:       node, StateDir: t.TempDir(), EnableTunnel: true, EnableProxy: true,
		Update: func(s control.Snapshot) { snapshots <- s },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the client of %s ended with: %v", node, err)
		}
	})
	return client, snapshots
}

// TestPublish runs what an agent has against the API server with roles and
// policies: what it writes is let through, is right, and is written once.
func TestPublish(t *testing.T) {
	c := cluster.Start(t, cluster.Options{})
	seed(t, c, presets()[0])
	armed(t, userOf(t, c.AgentConfig(t, "edge-a-gw", "corax-agent")))
	admin := gatewaysOf(t, c.Config())
	if err := admin.Delete(t.Context(), "probe", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	mark := c.Mark(t)

	client, snapshots := runClient(t, c, "edge-a-gw", "corax-agent")
	s := <-snapshots
	if len(s.Gateways) != 3 || !s.EnableProxy || s.EnableTunnel {
		t.Errorf("the snapshot has %d Gateways, proxy %v, tunnel %v; raven-cfg says proxy on, tunnel off", len(s.Gateways), s.EnableProxy, s.EnableTunnel)
	}
	client.Carry(true, "")
	client.Publish(kube.Entry{PublicKey: keyOf("c"), NATType: "PortRestricted", TLSPort: 443})
	want := []any{
		endpoint("edge-a-gw", "tunnel", "port", int64(4500), "underNAT", true, "natType", "PortRestricted",
			"config", object{"publicKey": keyOf("c"), "theirs": "1", "corax.io/tls-port": "443"}),
		endpoint("edge-a-1", "tunnel", "underNAT", true, "config", object{"publicKey": keyOf("1")}),
		endpoint("edge-a-gw", "proxy", "underNAT", true, "natType", "PortRestricted",
			"config", object{"publicKey": keyOf("c"), "corax.io/tls-port": "443"}),
	}
	cluster.Eventually(t, 2*time.Minute, "the entry", func(context.Context) error {
		got, _, err := unstructured.NestedSlice(admin.get(t, "edge-a").Object, "spec", "endpoints")
		if err == nil && !cmp.Equal(want, got) {
			err = fmt.Errorf("-want +got:\n%s", cmp.Diff(want, got))
		}
		return err
	})
	cluster.Eventually(t, time.Minute, "the Lease", func(ctx context.Context) error {
		l, err := c.Client.CoordinationV1().Leases("corax-leases").Get(ctx, "edge-a-gw", metav1.GetOptions{})
		if err == nil && (l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity != "edge-a-gw") {
			err = fmt.Errorf("it is held by %v", l.Spec.HolderIdentity)
		}
		return err
	})

	// Somebody adds an entry before ours: ours is found again.
	entry := endpoint("edge-a-2", "tunnel", "underNAT", true)
	if err := admin.patch(t.Context(), "edge-a", "application/json-patch+json", []any{op("add", "/spec/endpoints/0", entry)}); err != nil {
		t.Fatal(err)
	}
	// Writes of one agent are 30 s apart.
	client.Publish(kube.Entry{PublicKey: keyOf("d"), NATType: "PortRestricted", TLSPort: 443})
	cluster.Eventually(t, 2*time.Minute, "the new key", func(context.Context) error {
		got, _, err := unstructured.NestedSlice(admin.get(t, "edge-a").Object, "spec", "endpoints")
		if err != nil {
			return err
		}
		if key := got[1].(object)["config"].(object)["publicKey"]; key != keyOf("d") {
			return fmt.Errorf("the key is %v", key)
		}
		if _, ok := got[0].(object)["config"]; ok {
			t.Errorf("another's entry was written: %v", got[0])
		}
		return nil
	})

	writes := c.Writes(t, mark, func(w cluster.Write) bool { return strings.HasSuffix(w.User, ":corax-agent") })
	patches := 0
	for _, w := range writes {
		if w.Resource == "gateways" && w.Name == "edge-a" {
			patches++
		}
		// A Lease that is patched before it is there is a 404.
		if w.Code >= 400 && !(w.Code == 404 && w.Resource == "leases") {
			t.Errorf("refused: %s", w)
		}
		if w.Agent != "corax-agent" {
			t.Errorf("the user agent is %q", w.Agent)
		}
	}
	if patches != 2 {
		t.Errorf("edge-a was patched %d times for two changes: %v", patches, writes)
	}
}
