package controller

import (
	"context"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"corax/control/api/v1beta1"
	"corax/control/kube/gateway"
)

// publicStory has a Gateway whose nodes are exposed by their own addresses, and
// returns what its entries say at each turn.
func publicStory(t *testing.T, kill int) (*bench, [][]string) {
	g := exposedGateway("node-1")
	g.Spec.ExposeType, g.Annotations = v1beta1.ExposePublicIP, nil
	g.Spec.Endpoints[1].PublicIP = "203.0.113.7" // a person's
	n := node("node-1", "cloud", "10.0.0.1")
	n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: "198.51.100.1"})
	b := newBench(t, kill, g, n)
	var said [][]string
	look := func() {
		t.Helper()
		b.run(b.expose, "cloud")
		g := &gateway.Gateway{}
		b.get(g, "", "cloud")
		said = append(said, []string{g.Spec.Endpoints[0].PublicIP, g.Spec.Endpoints[1].PublicIP, g.Annotations[v1beta1.AnnotationApplied]})
	}
	look()
	b.person(func(c client.Client) error {
		n := &corev1.Node{}
		if err := c.Get(t.Context(), client.ObjectKey{Name: "node-1"}, n); err != nil {
			return err
		}
		n.Status.Addresses[2].Address = "198.51.100.2"
		return c.Status().Update(t.Context(), n)
	})
	look()
	return b, said
}

func TestPublicIPStory(t *testing.T) {
	want := [][]string{
		{"198.51.100.1", "203.0.113.7", `{"tunnel/node-1":"198.51.100.1"}`},
		{"198.51.100.2", "203.0.113.7", `{"tunnel/node-1":"198.51.100.2"}`},
		{"", "203.0.113.7", ""},
	}
	const most = 20
	for kill := range most {
		b, said := publicStory(t, kill)
		b.patchGateway(func(g *gateway.Gateway) { g.Spec.ExposeType = "" })
		b.run(b.expose, "cloud")
		g := &gateway.Gateway{}
		b.get(g, "", "cloud")
		said = append(said, []string{g.Spec.Endpoints[0].PublicIP, g.Spec.Endpoints[1].PublicIP, g.Annotations[v1beta1.AnnotationApplied]})
		if diff := cmp.Diff(want, said); diff != "" {
			t.Fatalf("killed at write %d: %s", kill, diff)
		}
		if kill > b.writes {
			return
		}
	}
	t.Fatal("too many writes")
}

// TestWithdraw: what uninstall leaves of a person's Gateway.
func TestWithdraw(t *testing.T) {
	b, _ := publicStory(t, 0)
	r := &removal{client: b, cfg: Config{Namespace: "kube-system"}, log: slog.New(slog.DiscardHandler)}
	for range 2 {
		if err := r.freeGateways(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	g := &gateway.Gateway{}
	b.get(g, "", "cloud")
	if e := g.Spec.Endpoints; e[0].PublicIP != "" || e[1].PublicIP != "203.0.113.7" || len(g.Annotations) != 0 || len(g.Finalizers) != 0 {
		t.Errorf("%+v %v", e, g.ObjectMeta)
	}
}

// TestUnlabelWithoutCRD: labels of ours go also where somebody deleted the CRD.
func TestUnlabelWithoutCRD(t *testing.T) {
	ours, theirs := node("ours", "edge", "10.0.0.1"), node("theirs", "edge", "10.0.0.2")
	fields := []metav1.ManagedFieldsEntry{entry(name, `{"f:metadata":{"f:labels":{"f:raven.openyurt.io/gateway":{}}}}`)}
	b := newBench(t, 0, ours, theirs)
	c := interceptor.NewClient(b, interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			if _, ok := list.(*gateway.GatewayList); ok {
				return &meta.NoKindMatchError{GroupKind: gateway.GroupVersionKind().GroupKind()}
			}
			err := c.List(ctx, list, opts...)
			if nodes, ok := list.(*corev1.NodeList); ok { // the fake keeps no managedFields
				for i := range nodes.Items {
					if nodes.Items[i].Name == "ours" {
						nodes.Items[i].ManagedFields = fields
					}
				}
			}
			return err
		},
	})
	r := &removal{client: c, cfg: Config{Namespace: "kube-system"}, log: slog.New(slog.DiscardHandler)}
	if err := r.unlabelNodes(t.Context()); err != nil {
		t.Fatal(err)
	}
	for who, want := range map[string]string{"ours": "", "theirs": "edge"} {
		n := &corev1.Node{}
		if b.get(n, "", who); n.Labels[v1beta1.LabelGateway] != want {
			t.Errorf("%s: %v", who, n.Labels)
		}
	}
}
