package controller

import (
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"corax/control/controller/election"
)

const (
	// blocksPeriod is how often we look whether Calico has come.
	blocksPeriod = 30 * time.Second
	// blocksPatience is how long nothing is decided while Calico's blocks cannot
	// be read. Then nodes keep the subnets that status has.
	blocksPatience = 20 * time.Second
)

func blockAffinity() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: "crd.projectcalico.org", Version: "v1", Kind: "BlockAffinity"}
}

// blocks are the subnets that Calico gave to nodes. The zero value knows nothing.
type blocks struct {
	mu     sync.Mutex
	ready  bool
	blind  bool                      // they cannot be read
	byName map[string]election.Block // by name of the affinity
	byNode map[string][]string       // names of affinities
}

// known reports whether it is known what Calico gave, or that it gives nothing;
// blind that this will not be known soon.
func (b *blocks) known() (known, blind bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ready, b.blind && !b.ready
}

// giveUp says that the blocks cannot be read; false: they are known.
func (b *blocks) giveUp() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blind = true
	return !b.ready
}

func (b *blocks) setReady() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ready = true
}

// of returns the subnets of a node: its blocks, and where Calico gives none in the
// whole cluster, those of the Node.
func (b *blocks) of(node string, subnets []string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.byName) == 0 {
		return subnets
	}
	var out []string
	for _, name := range b.byNode[node] {
		out = append(out, b.byName[name].CIDR)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// set notes an affinity, and returns the nodes that it changes something for; all
// says that the first one came or the last one went, which concerns every node.
func (b *blocks) set(name string, is election.Block) (changed []string, all bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	was, had := b.byName[name], len(b.byName)
	if was == is {
		return nil, false
	}
	if b.byName == nil {
		b.byName, b.byNode = map[string]election.Block{}, map[string][]string{}
	}
	if was.Node != "" {
		changed = append(changed, was.Node)
		b.byNode[was.Node] = slices.DeleteFunc(b.byNode[was.Node], func(n string) bool { return n == name })
		if len(b.byNode[was.Node]) == 0 {
			delete(b.byNode, was.Node)
		}
		delete(b.byName, name)
	}
	if is.Node != "" {
		b.byName[name] = is
		b.byNode[is.Node] = append(b.byNode[is.Node], name)
		if is.Node != was.Node {
			changed = append(changed, is.Node)
		}
	}
	return changed, (had == 0) != (len(b.byName) == 0)
}

// watchBlocks waits until the cluster has Calico's API, and then follows it.
func (r *electorate) watchBlocks(ctx context.Context, mapper meta.RESTMapper, c cache.Cache) error {
	patience := time.AfterFunc(blocksPatience, func() {
		if r.blocks.giveUp() {
			r.log.Warn("Calico's blocks cannot be read; its nodes keep the subnets that they have", "after", blocksPatience)
			r.askCalico(ctx)
		}
	})
	defer patience.Stop()
	gvk := blockAffinity()
	for {
		_, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
		wait := blocksPeriod
		switch {
		case err == nil:
			if err = r.followBlocks(ctx, c); err == nil {
				<-ctx.Done()
				return nil
			}
			r.log.Warn("Calico's blocks cannot be watched", "err", err)
			wait = retryMost
		case meta.IsNoMatchError(err):
			r.blocks.setReady()
		default:
			r.log.Debug("the API groups cannot be read", "err", err)
			wait = retryMost
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// followBlocks returns when all blocks are known.
func (r *electorate) followBlocks(ctx context.Context, c cache.Cache) error {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(blockAffinity())
	informer, err := c.GetInformer(ctx, u, cache.BlockUntilSynced(true))
	if err != nil {
		return err
	}
	h, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { r.seeBlock(ctx, o, false) },
		UpdateFunc: func(_, o any) { r.seeBlock(ctx, o, false) },
		DeleteFunc: func(o any) { r.seeBlock(ctx, o, true) },
	})
	if err != nil {
		return err
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), h.HasSynced) {
		return ctx.Err()
	}
	r.blocks.setReady()
	r.askCalico(ctx)
	return nil
}

// seeBlock notes one block.
func (r *electorate) seeBlock(ctx context.Context, o any, gone bool) {
	if d, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
		o = d.Obj
	}
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return
	}
	var b election.Block
	if !gone {
		b = election.ReadBlock(u.Object)
	}
	nodes, all := r.blocks.set(u.GetName(), b)
	q := r.queue.get()
	if known, _ := r.blocks.known(); q == nil || !known {
		return
	}
	if all {
		r.askCalico(ctx)
		return
	}
	for _, n := range nodes {
		r.addOf(ctx, q, n)
	}
}

// askCalico asks for the Gateways of all nodes on which Calico is at work: with the
// first block, nodes without any have no subnet.
func (r *electorate) askCalico(ctx context.Context) {
	q := r.queue.get()
	if q == nil {
		return
	}
	var list corev1.NodeList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		r.log.Warn("nodes cannot be listed", "err", err)
		return
	}
	for i := range list.Items {
		if n := election.ReadNode(&list.Items[i]); n.Calico {
			for _, g := range gatewayOf(&list.Items[i]) {
				q.Add(request(g))
			}
		}
	}
}
