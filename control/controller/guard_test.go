package controller

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"corax/control/kube/gateway"
)

// crdReader answers with what the conversion of the CRD is.
type crdReader struct {
	client.Reader
	service string
	err     error
	reads   int
}

func (r *crdReader) Get(_ context.Context, _ client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	r.reads++
	if u, ok := o.(*unstructured.Unstructured); ok && r.service != "" {
		_ = unstructured.SetNestedField(u.Object, r.service, "spec", "conversion", "webhook", "clientConfig", "service", "name")
	}
	return r.err
}

func written(by string, at time.Time) *gateway.Gateway {
	t := metav1.NewTime(at)
	return &gateway.Gateway{ObjectMeta: metav1.ObjectMeta{
		Name: "g", ManagedFields: []metav1.ManagedFieldsEntry{{Manager: by, Time: &t, Subresource: "status"}},
	}}
}

func TestGuard(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", ManagedFields: written("yurt-manager", start).ManagedFields}}
	notFound := apierrors.NewNotFound(schema.GroupResource{}, "")

	r := &crdReader{}
	recorder := events.NewFakeRecorder(100)
	g := newGuard(r, recorder, Config{Log: slog.New(slog.DiscardHandler)})
	for _, step := range []struct {
		name    string
		now     time.Time
		service string
		err     error
		object  client.Object
		ok      bool
		again   time.Duration
		events  int
		ready   string // part of the reason; empty: ready
	}{
		{"cannot read the CRD", at(0), "", errors.New("no"), written("kubectl", start), false, time.Second, 1, "cannot be read: no"},
		{"still", at(time.Second), "", errors.New("no"), written("kubectl", start), false, 2 * time.Second, 0, "cannot be read"},
		{"not so soon", at(2500 * time.Millisecond), "", nil, written("kubectl", start), false, time.Second, 0, "cannot be read"},
		{"there is none", at(3 * time.Second), "", notFound, written("kubectl", start), true, 0, 0, ""},
		{"it is not read again so soon", at(62 * time.Second), "yurt-manager-webhook-service", nil, written("kubectl", start), true, 0, 0, ""},
		{"yurt-manager converts", at(63 * time.Second), "yurt-manager-webhook-service", nil, written("kubectl", start), false, time.Minute, 1, "converted by"},
		{"of no matter whom, and once", at(64 * time.Second), "", nil, node, false, 59 * time.Second, 0, "converted by"},
		{"an answer that fails changes nothing", at(130 * time.Second), "", errors.New("no"), node, false, time.Second, 0, "converted by"},
		{"ours again", at(190 * time.Second), "", nil, node, true, 0, 0, ""},
		{"written by yurt-manager", at(200 * time.Second), "", nil, written("yurt-manager", start), false, time.Minute, 1, "Gateway g: yurt-manager wrote it at 2026-01-01T00:00:00Z"},
		{"told once", at(210 * time.Second), "", nil, written("yurt-manager", start), false, time.Minute, 0, "Gateway g"},
		{"written again", at(220 * time.Second), "", nil, written("yurt-manager", at(215*time.Second)), false, time.Minute, 1, "Gateway g"},
		{"nodes carry its mark anyway", at(230 * time.Second), "", nil, node, true, 0, 0, "Gateway g"},
		{"nobody asks: it is gone", at(10 * time.Minute), "", nil, node, true, 0, 0, ""},
		{"nearly a day", at(24*time.Hour - 10*time.Second), "", nil, written("yurt-manager", start), false, 10 * time.Second, 1, "Gateway g"},
		{"a day", at(24 * time.Hour), "", nil, written("yurt-manager", start), true, 0, 0, ""},
	} {
		g.now = func() time.Time { return step.now }
		r.service, r.err = step.service, step.err
		ok, again := g.Allows(t.Context(), step.object)
		if ok != step.ok || again != step.again {
			t.Errorf("%s: %v, again after %v", step.name, ok, again)
		}
		if n := len(recorder.Events); n != step.events {
			t.Errorf("%s: %d events", step.name, n)
		}
		for len(recorder.Events) > 0 {
			<-recorder.Events
		}
		err := g.Ready()
		if (err != nil) != (step.ready != "") || err != nil && !strings.Contains(err.Error(), step.ready) {
			t.Errorf("%s: ready: %v", step.name, err)
		}
	}

	// A day after it was written, and told to take over: nothing is asked.
	g = newGuard(r, recorder, Config{TakeOver: true})
	before := r.reads
	if ok, _ := g.Allows(t.Context(), written("yurt-manager", time.Now())); !ok || g.Ready() != nil || r.reads != before {
		t.Error("--take-over does not")
	}
	if ok, _ := (*guard)(nil).Allows(t.Context(), node); !ok {
		t.Error("no guard refuses")
	}
}

// TestReadyListsFew checks that a probe's answer stays short.
func TestReadyListsFew(t *testing.T) {
	g := newGuard(&crdReader{}, events.NewFakeRecorder(100), Config{Log: slog.New(slog.DiscardHandler)})
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		o := written("yurt-manager", time.Now())
		o.Name = name
		g.Allows(t.Context(), o)
	}
	if err := g.Ready(); err == nil || !strings.Contains(err.Error(), "and 2 more") || strings.Contains(err.Error(), "Gateway d") {
		t.Errorf("%v", err)
	}
}

// slowReader answers when it is told to.
type slowReader struct {
	client.Reader
	asked chan struct{}
}

func (r slowReader) Get(ctx context.Context, _ client.ObjectKey, _ client.Object, _ ...client.GetOption) error {
	r.asked <- struct{}{}
	<-ctx.Done() // an API server that hangs
	return ctx.Err()
}

// TestGuardThatWaits: while the API server hangs, others are answered at once, and
// the one that asked it is after a while.
func TestGuardThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := slowReader{asked: make(chan struct{}, 1)}
		g := newGuard(r, events.NewFakeRecorder(10), Config{Log: slog.New(slog.DiscardHandler)})
		start, done := time.Now(), make(chan time.Duration)
		go func() {
			_, again := g.Allows(t.Context(), written("kubectl", start))
			done <- again
		}()
		<-r.asked
		if ok, again := g.Allows(t.Context(), written("kubectl", start)); ok || again != crdAgain || time.Since(start) != 0 {
			t.Errorf("%v, again after %v, answered after %v", ok, again, time.Since(start))
		}
		if err := g.Ready(); err != nil {
			t.Errorf("ready: %v", err)
		}
		if again := <-done; again != crdAgain || time.Since(start) != crdPatience {
			t.Errorf("again after %v, answered after %v", again, time.Since(start))
		}
	})
}
