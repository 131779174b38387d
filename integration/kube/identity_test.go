//go:build linux

package kube_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	coordv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"corax/integration/kube/cluster"
)

// user is one who speaks to the API server.
type user struct {
	*kubernetes.Clientset
	gateways gateways
}

func userOf(t *testing.T, cfg *rest.Config) user {
	t.Helper()
	return user{clientset(t, cfg), gatewaysOf(t, cfg)}
}

// op is one step of a JSON patch.
func op(what, path string, value ...any) object {
	o := object{"op": what, "path": path}
	if len(value) > 0 {
		o["value"] = value[0]
	}
	return o
}

// edit sends a JSON patch of a Gateway.
func edit(name string, ops ...any) func(context.Context, user) error {
	return func(ctx context.Context, u user) error { return u.gateways.patch(ctx, name, types.JSONPatchType, ops) }
}

// merge sends a merge patch of a Gateway.
func merge(name string, patch object, subresource ...string) func(context.Context, user) error {
	return func(ctx context.Context, u user) error { return u.gateways.merge(ctx, name, patch, subresource...) }
}

// Who refuses a request, by what the refusal says.
const (
	byAny   = "edge-b-gw"
	byRBAC  = "cannot"
	byEntry = "ValidatingAdmissionPolicy 'corax-agent-own-entry'"
	byLease = "ValidatingAdmissionPolicy 'corax-agent-own-lease'"
	byNode  = "ValidatingAdmissionPolicy 'corax-node-own-labels'"
)

// refused reports what is wrong with how a request was refused.
func refused(err error, by string) error {
	switch {
	case err == nil:
		return errors.New("it was let through")
	case !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err):
		return fmt.Errorf("it failed otherwise: %w", err)
	case !strings.Contains(err.Error(), by):
		return fmt.Errorf("it was not refused by %q, but: %w", by, err)
	}
	return nil
}

// preset is one way to deploy.
type preset struct {
	name       string
	manifests  string
	agent, hub string // accounts; in openyurt they are one
}

func presets() []preset {
	return []preset{
		{"standalone", "deploy/manifests/base", "corax-agent", "corax-hub"},
		{"openyurt", "deploy/manifests/presets/openyurt", "raven-agent-account", "raven-agent-account"},
	}
}

// keyOf makes a public key, the same one for the same letter.
func keyOf(letter string) string { return strings.Repeat(letter, 42) + "A=" }

// seed makes two edges and a cloud, with everything that an agent could want to
// change.
func seed(t *testing.T, c *cluster.Cluster, p preset) {
	t.Helper()
	c.Apply(t, crd)
	c.Apply(t, p.manifests)
	admin := gatewaysOf(t, c.Config())
	admin.create(t, "cloud", object{
		"exposeType": "PublicIP", "tunnelConfig": object{"Replicas": int64(1)},
		"endpoints": []any{endpoint("cloud-gw", "tunnel", "port", int64(4500), "underNAT", false, "publicIP", "203.0.113.130")},
	})
	admin.create(t, "edge-a", object{
		"tunnelConfig": object{"Replicas": int64(1)},
		"endpoints": []any{
			endpoint("edge-a-gw", "tunnel", "port", int64(4500), "underNAT", true, "config", object{"publicKey": keyOf("a"), "theirs": "1"}),
			endpoint("edge-a-1", "tunnel", "underNAT", true, "config", object{"publicKey": keyOf("1")}),
			endpoint("edge-a-gw", "proxy", "underNAT", true),
		},
	})
	admin.create(t, "edge-b", endpoints(endpoint("edge-b-gw", "tunnel", "underNAT", true, "config", object{"publicKey": keyOf("b")})))
	admin.create(t, "probe", endpoints(endpoint("edge-a-gw", "tunnel", "underNAT", true)))
	for _, name := range []string{"edge-b-gw", "probe"} {
		lease := &coordv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := c.Client.CoordinationV1().Leases("corax-leases").Create(t.Context(), lease, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// armed waits until roles and policies are in force, which the API server sees to
// a moment after they were written.
func armed(t *testing.T, agent user) {
	t.Helper()
	n := 0
	cluster.Eventually(t, time.Minute, "roles and policies in force", func(ctx context.Context) error {
		n++
		return errors.Join(
			refused(merge("probe", object{"metadata": object{"annotations": object{"n": fmt.Sprint(n)}}})(ctx, agent), byEntry),
			refused(patchLease("corax-leases", "probe", fmt.Sprint(n))(ctx, agent), byLease),
		)
	})
}

func patchLease(namespace, name, holder string) func(context.Context, user) error {
	return func(ctx context.Context, u user) error {
		patch := fmt.Sprintf(`{"spec":{"holderIdentity":%q}}`, holder)
		_, err := u.CoordinationV1().Leases(namespace).Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		return err
	}
}

func createLease(namespace string, meta metav1.ObjectMeta) func(context.Context, user) error {
	return func(ctx context.Context, u user) error {
		_, err := u.CoordinationV1().Leases(namespace).Create(ctx, &coordv1.Lease{ObjectMeta: meta}, metav1.CreateOptions{})
		return err
	}
}

// TestIdentity shows that an agent can write what is its own and nothing else,
// whatever it tries, in both presets.
func TestIdentity(t *testing.T) {
	for _, p := range presets() {
		t.Run(p.name, func(t *testing.T) {
			c := cluster.Start(t, cluster.Options{})
			seed(t, c, p)
			agent := userOf(t, c.AgentConfig(t, "edge-a-gw", p.agent))
			armed(t, agent)
			t.Run("permitted", func(t *testing.T) { permitted(t, agent) })
			t.Run("denied", func(t *testing.T) { deniedGateways(t, agent) })
			t.Run("denied leases", func(t *testing.T) { deniedLeases(t, agent) })
			t.Run("denied others", func(t *testing.T) { deniedOthers(t, agent, p.agent == p.hub) })
			t.Run("no node", func(t *testing.T) { noNode(t, userOf(t, c.AccountConfig(t, p.agent))) })
			t.Run("hub", func(t *testing.T) { hub(t, userOf(t, c.AgentConfig(t, "cloud-gw", p.hub))) })
			t.Run("kubelet", func(t *testing.T) { kubelet(t, c, p) })
			if p.name == "standalone" {
				t.Run("labels", func(t *testing.T) { labels(t, c) })
			}
			t.Run("nothing changed", func(t *testing.T) { untouched(t, c) })
		})
	}
}
