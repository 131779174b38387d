package controller

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"corax/control/api/v1beta1"
	"corax/control/controller/election"
)

func affinity(name, node, cidr, state string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{
		"spec": map[string]any{"node": node, "cidr": cidr, "state": state, "deleted": "false"},
	}}
	u.SetGroupVersionKind(blockAffinity())
	u.SetName(name)
	return u
}

func TestBlocks(t *testing.T) {
	own := []string{"10.1.1.0/24"}
	var b blocks
	for _, s := range []struct {
		name    string
		set     string
		block   election.Block
		changed []string
		all     bool
		a, b    []string
	}{
		{"none at all: the Node's", "x", election.Block{}, nil, false, own, own},
		{"the first: who has none has nothing", "x", election.Block{Node: "a", CIDR: "10.8.0.64/26"}, []string{"a"}, true, []string{"10.8.0.64/26"}, nil},
		{"the same", "x", election.Block{Node: "a", CIDR: "10.8.0.64/26"}, nil, false, []string{"10.8.0.64/26"}, nil},
		{"a second", "y", election.Block{Node: "a", CIDR: "10.8.0.0/26"}, []string{"a"}, false, []string{"10.8.0.0/26", "10.8.0.64/26"}, nil},
		{"moved", "y", election.Block{Node: "b", CIDR: "10.8.0.0/26"}, []string{"a", "b"}, false, []string{"10.8.0.64/26"}, []string{"10.8.0.0/26"}},
		{"gone", "y", election.Block{}, []string{"b"}, false, []string{"10.8.0.64/26"}, nil},
		{"the last one gone", "x", election.Block{}, []string{"a"}, true, own, own},
	} {
		changed, all := b.set(s.set, s.block)
		if !slices.Equal(changed, s.changed) || all != s.all {
			t.Errorf("%s: changed %v, %v; want %v, %v", s.name, changed, all, s.changed, s.all)
		}
		if got := b.of("a", own); !slices.Equal(got, s.a) {
			t.Errorf("%s: a has %v, want %v", s.name, got, s.a)
		}
		if got := b.of("b", own); !slices.Equal(got, s.b) {
			t.Errorf("%s: b has %v, want %v", s.name, got, s.b)
		}
	}
	if len(b.byNode) > 0 {
		t.Errorf("left over: %v", b.byNode)
	}
}

func TestGatewayWithCalico(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calico := func(n *corev1.Node) *corev1.Node {
			n.Annotations = map[string]string{"projectcalico.org/IPv4Address": "10.0.0.1/24"}
			return n
		}
		w := newWorld(t, ourGateway("pool", "pool/pool"), calico(readyNode("a", "pool", 1)), calico(readyNode("b", "pool", 2)), readyNode("c", "pool", 3))
		w.r.blocks.ready = false
		if res := w.once("pool"); res.RequeueAfter <= 0 || len(w.writes) > 0 {
			t.Errorf("subnets are written before it is known what Calico gave: %+v, %v", res, w.writes)
		}
		w.r.blocks.setReady()
		w.settle("pool")
		q := testQueue(t)
		w.r.queue.q = q
		w.r.seeBlock(t.Context(), affinity("a-1", "a", "10.8.0.64/26", "pending"), false)
		if got := asked(q); got != nil {
			t.Errorf("a pending block asks for %v", got)
		}
		w.r.seeBlock(t.Context(), affinity("a-1", "a", "10.8.0.64/26", "confirmed"), false)
		if got := asked(q); !slices.Equal(got, []string{"pool"}) {
			t.Errorf("a block asks for %v", got)
		}
		w.settle("pool")
		var got [][]string
		for _, n := range w.get("pool").Status.Nodes {
			got = append(got, n.Subnets)
		}
		if len(got) != 3 || !slices.Equal(got[0], []string{"10.8.0.64/26"}) || len(got[1]) != 0 ||
			!slices.Equal(got[2], []string{"10.1.3.0/24", "fd01:3::/64"}) {
			t.Errorf("subnets are %v", got)
		}
		w.r.seeBlock(t.Context(), toolscache.DeletedFinalStateUnknown{Obj: affinity("a-1", "a", "10.8.0.64/26", "confirmed")}, true)
		if got := asked(q); !slices.Equal(got, []string{"pool"}) {
			t.Errorf("a block that goes asks for %v", got)
		}
		w.settle("pool")
		if got := w.get("pool").Status.Nodes[0].Subnets; !slices.Equal(got, []string{"10.1.1.0/24", "fd01:1::/64"}) {
			t.Errorf("without blocks it has %v", got)
		}
	})
}

// TestGatewayWithCalicoThatHides: blocks that cannot be read, for lack of rights,
// keep nobody from being elected, and nodes from having the subnets that they had.
func TestGatewayWithCalicoThatHides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calico := func(n *corev1.Node) *corev1.Node {
			n.Annotations = map[string]string{"projectcalico.org/IPv4Address": "10.0.0.1/24"}
			return n
		}
		g := ourGateway("pool", "pool/pool")
		g.Annotations[v1beta1.AnnotationExtraCIDRs] = "10.9.0.0/16"
		g.Status.Nodes = []v1beta1.NodeInfo{{NodeName: "a", PrivateIP: "192.168.0.2", Subnets: []string{"10.8.0.64/26", "10.9.0.0/16"}}}
		w := newWorld(t, g, calico(readyNode("a", "pool", 1)), calico(readyNode("b", "pool", 2)))
		w.r.blocks.ready = false
		for range 100 {
			if res := w.once("pool"); res.RequeueAfter <= 0 || len(w.writes) > 0 {
				t.Fatalf("it does not wait: %+v, %v", res, w.writes)
			}
		}
		if !w.r.blocks.giveUp() {
			t.Fatal("the blocks are known")
		}
		w.settle("pool")
		is := w.get("pool")
		if len(is.Status.ActiveEndpoints) == 0 {
			t.Error("nobody was elected")
		}
		var got [][]string
		for _, n := range is.Status.Nodes {
			got = append(got, n.Subnets)
		}
		if want := [][]string{{"10.8.0.64/26", "10.9.0.0/16"}, {"10.1.2.0/24", "fd01:2::/64"}}; !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("subnets %v", got)
		}
		w.r.blocks.setReady()
		w.r.seeBlock(t.Context(), affinity("b-1", "b", "10.8.1.0/26", "confirmed"), false)
		w.settle("pool")
		if got := w.get("pool").Status.Nodes[1].Subnets; !slices.Equal(got, []string{"10.8.1.0/26"}) {
			t.Errorf("after all it has %v", got)
		}
	})
}

// TestCalicoThatHides checks the wait itself.
func TestCalicoThatHides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.r.blocks.ready = false
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		mapper := meta.NewDefaultRESTMapper(nil)
		mapper.Add(blockAffinity(), meta.RESTScopeRoot)
		go func() { done <- w.r.watchBlocks(ctx, mapper, hidingCache{}) }()
		time.Sleep(blocksPatience - time.Second)
		if _, blind := w.r.blocks.known(); blind {
			t.Error("it gave up too soon")
		}
		time.Sleep(2 * time.Second)
		if known, blind := w.r.blocks.known(); known || !blind {
			t.Errorf("known %v, blind %v", known, blind)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// hidingCache never gets to know anything.
type hidingCache struct{ cache.Cache }

func (hidingCache) GetInformer(ctx context.Context, _ client.Object, _ ...cache.InformerGetOption) (cache.Informer, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
