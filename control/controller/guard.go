package controller

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"corax/control/api/v1beta1"
	"corax/control/kube/gateway"
)

// foreignManager is the field manager of OpenYurt's controllers, and a part of
// the name of their webhook's Service.
const foreignManager = "yurt-manager"

const (
	// foreignFor is how long an object belongs to who wrote it.
	foreignFor = 24 * time.Hour
	// guardPeriod is how often the guard reads the CRD, and how long a
	// reconciler may wait before it asks again about an object.
	guardPeriod = time.Minute
	// crdPatience bounds one read of the CRD. One that fails is tried again after
	// crdAgain, twice that, and so on up to guardPeriod.
	crdPatience = 5 * time.Second
	crdAgain    = time.Second
)

// guard keeps two controllers from writing the same objects: ours keeps off what
// yurt-manager wrote within a day, and off everything while the Gateway CRD is
// converted by yurt-manager's webhook, unless it was told to take over.
//
// A nil guard allows everything. Its methods may be called from any goroutine.
type guard struct {
	api      client.Reader // not the cache
	events   events.EventRecorder
	log      *slog.Logger
	now      func() time.Time
	takeOver bool

	mu      sync.Mutex
	read    bool          // the CRD was
	reading bool          // it is being
	next    time.Time     // when to read it again
	pause   time.Duration // after a read that failed
	crd     string        // why the CRD keeps us off; empty: it does not
	objects map[object]finding
}

type object struct{ kind, namespace, name string }

// finding is why one object is left alone.
type finding struct {
	why   string
	asked time.Time // when a reconciler asked last
}

func newGuard(api client.Reader, e events.EventRecorder, cfg Config) *guard {
	return &guard{
		api: api, events: e, log: cfg.Log, now: time.Now, takeOver: cfg.TakeOver,
		crd: "the CRD has not been read yet", objects: map[object]finding{},
	}
}

// Allows reports whether the controller may write o, as it is in the cache; when
// not, ask again after the duration. The first refusal raises an event on o.
// Nodes carry marks of many programs, so for them only the CRD counts. To make a
// new object, ask with what it will be.
func (g *guard) Allows(ctx context.Context, o client.Object) (ok bool, again time.Duration) {
	if g == nil || g.takeOver {
		return true, 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch g.readCRD(ctx); {
	case !g.read && g.reading: // by another reconciler, for the first time
		return false, crdAgain
	case g.crd != "":
		g.refuse(gatewayCRD(), g.crd)
		return false, min(guardPeriod, max(crdAgain, g.next.Sub(g.now())))
	}
	delete(g.objects, key(gatewayCRD()))
	why, left := foreignWriter(o, g.now())
	if why == "" {
		delete(g.objects, key(o))
		return true, 0
	}
	g.refuse(o, why)
	return false, min(left, guardPeriod)
}

// refuse notes why o keeps us off, and tells of it once.
func (g *guard) refuse(o client.Object, why string) {
	f, known := g.objects[key(o)]
	g.objects[key(o)] = finding{why: why, asked: g.now()}
	if known && f.why == why {
		return
	}
	g.log.Warn("an object is left to another controller", "kind", kindOf(o), "name", o.GetName(), "why", why)
	g.events.Eventf(o, nil, corev1.EventTypeWarning, "OtherController", "KeepOff",
		"corax-controller keeps off: %s; --take-over makes it act", why)
}

// gatewayCRD is the CRD by name.
func gatewayCRD() *unstructured.Unstructured {
	crd := &unstructured.Unstructured{}
	crd.SetGroupVersionKind(schema.GroupVersionKind{
		Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition",
	})
	crd.SetName(gateway.Resource + "." + v1beta1.Group)
	return crd
}

// Ready returns why the controller keeps off objects; nil when it does not.
func (g *guard) Ready() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var whys []string
	for k, f := range g.objects {
		if g.now().Sub(f.asked) > 3*guardPeriod { // nobody asks: it is gone
			delete(g.objects, k)
			continue
		}
		whys = append(whys, fmt.Sprintf("%s %s: %s", k.kind, k.name, f.why))
	}
	if len(whys) == 0 {
		return nil
	}
	slices.Sort(whys)
	const most = 3
	if rest := len(whys) - most; rest > 0 {
		whys = append(whys[:most], fmt.Sprintf("and %d more", rest))
	}
	return fmt.Errorf("controller: keeping off: %s", strings.Join(whys, "; "))
}

// readCRD looks from time to time who converts Gateways. While that cannot be
// read, what was known counts. One caller at a time reads, without g.mu.
func (g *guard) readCRD(ctx context.Context) {
	if g.reading || g.now().Before(g.next) {
		return
	}
	g.reading = true
	g.mu.Unlock()
	crd := gatewayCRD()
	short, cancel := context.WithTimeout(ctx, crdPatience)
	err := g.api.Get(short, client.ObjectKeyFromObject(crd), crd)
	cancel()
	g.mu.Lock()
	g.reading = false
	wait := guardPeriod
	switch {
	case err == nil:
		g.read, g.pause, g.crd = true, 0, foreignConversion(crd.Object)
	case apierrors.IsNotFound(err):
		g.read, g.pause, g.crd = true, 0, ""
	default:
		g.pause = min(max(2*g.pause, crdAgain), guardPeriod)
		wait = g.pause
		if !g.read {
			g.crd = fmt.Sprintf("the CRD cannot be read: %v", err)
		}
	}
	g.next = g.now().Add(wait)
}

// foreignConversion returns why a CRD is served by another controller, or nothing.
func foreignConversion(crd map[string]any) string {
	service, _, _ := unstructured.NestedString(crd, "spec", "conversion", "webhook", "clientConfig", "service", "name")
	url, _, _ := unstructured.NestedString(crd, "spec", "conversion", "webhook", "clientConfig", "url")
	if strings.Contains(service, foreignManager) || strings.Contains(url, foreignManager) {
		return "the CRD is converted by the webhook of " + foreignManager
	}
	return ""
}

// foreignWriter returns why o is another controller's, and for how long still.
func foreignWriter(o client.Object, now time.Time) (why string, left time.Duration) {
	if _, ok := o.(*corev1.Node); ok {
		return "", 0
	}
	var last time.Time
	for _, e := range o.GetManagedFields() {
		if e.Manager == foreignManager && e.Time != nil && e.Time.After(last) {
			last = e.Time.Time
		}
	}
	if left = foreignFor - now.Sub(last); last.IsZero() || left <= 0 {
		return "", 0
	}
	return fmt.Sprintf("%s wrote it at %s", foreignManager, last.UTC().Format(time.RFC3339)), left
}

func key(o client.Object) object {
	return object{kind: kindOf(o), namespace: o.GetNamespace(), name: o.GetName()}
}

// kindOf names the type also of objects from the cache, which say no kind.
func kindOf(o client.Object) string {
	if k := o.GetObjectKind().GroupVersionKind().Kind; k != "" {
		return k
	}
	t := fmt.Sprintf("%T", o)
	return t[strings.LastIndexByte(t, '.')+1:]
}
