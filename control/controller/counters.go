package controller

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// counter registers a counter with the metrics that the manager serves. A second
// manager of the same process counts with the first.
func counter(metric, help string, labels ...string) (*prometheus.CounterVec, error) {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: metric, Help: help}, labels)
	err := metrics.Registry.Register(c)
	if known := (prometheus.AlreadyRegisteredError{}); errors.As(err, &known) {
		if old, ok := known.ExistingCollector.(*prometheus.CounterVec); ok {
			return old, nil
		}
	}
	return c, err
}

// countingClient counts what it writes: an idle cluster has no writes.
type countingClient struct {
	client.Client
	writes *prometheus.CounterVec
}

// newCountingClient makes the client of the manager.
func newCountingClient(to *rest.Config, options client.Options) (client.Client, error) {
	c, err := client.New(to, options)
	if err != nil {
		return nil, err
	}
	writes, err := counter("corax_controller_writes_total",
		"Writes to the API server, by kind of object, verb and result.", "kind", "verb", "result")
	if err != nil {
		return nil, err
	}
	return &countingClient{c, writes}, nil
}

func (c *countingClient) count(o runtime.Object, verb string, err error) error {
	result, kind := "ok", ""
	if err != nil {
		result = "error"
	}
	if gvk, err := c.GroupVersionKindFor(o); err == nil {
		kind = gvk.Kind
	}
	c.writes.WithLabelValues(kind, verb, result).Inc()
	return err
}

// Create writes and counts.
func (c *countingClient) Create(ctx context.Context, o client.Object, opts ...client.CreateOption) error {
	return c.count(o, "create", c.Client.Create(ctx, o, opts...))
}

// Update writes and counts.
func (c *countingClient) Update(ctx context.Context, o client.Object, opts ...client.UpdateOption) error {
	return c.count(o, "update", c.Client.Update(ctx, o, opts...))
}

// Patch writes and counts.
func (c *countingClient) Patch(ctx context.Context, o client.Object, p client.Patch, opts ...client.PatchOption) error {
	return c.count(o, "patch", c.Client.Patch(ctx, o, p, opts...))
}

// Apply writes and counts.
func (c *countingClient) Apply(ctx context.Context, o runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
	err := c.Client.Apply(ctx, o, opts...)
	result := "ok"
	if err != nil {
		result = "error"
	}
	c.writes.WithLabelValues("", "apply", result).Inc()
	return err
}

// Delete writes and counts.
func (c *countingClient) Delete(ctx context.Context, o client.Object, opts ...client.DeleteOption) error {
	return c.count(o, "delete", c.Client.Delete(ctx, o, opts...))
}

// DeleteAllOf writes and counts.
func (c *countingClient) DeleteAllOf(ctx context.Context, o client.Object, opts ...client.DeleteAllOfOption) error {
	return c.count(o, "delete", c.Client.DeleteAllOf(ctx, o, opts...))
}

// Status returns a writer of the status that counts.
func (c *countingClient) Status() client.SubResourceWriter {
	return &countingWriter{c.Client.Status(), c}
}

type countingWriter struct {
	client.SubResourceWriter
	c *countingClient
}

// Update writes and counts.
func (w *countingWriter) Update(ctx context.Context, o client.Object, opts ...client.SubResourceUpdateOption) error {
	return w.c.count(o, "update", w.SubResourceWriter.Update(ctx, o, opts...))
}

// Patch writes and counts.
func (w *countingWriter) Patch(ctx context.Context, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
	return w.c.count(o, "patch", w.SubResourceWriter.Patch(ctx, o, p, opts...))
}
