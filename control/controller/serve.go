package controller

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// serve answers on a listener until ctx is done.
func serve(ctx context.Context, l net.Listener, what string, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 8 << 10}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// meter serves /metrics for as long as the process lives: one manager after the
// other would have to take the port anew, and not get it would end each.
type meter struct{ listener net.Listener } // nil: nothing is served

// newMeter listens at addr; empty: nowhere.
func newMeter(addr string) (*meter, error) {
	if addr == "" {
		return &meter{}, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return &meter{l}, nil
}

// Run answers until ctx is done.
func (m *meter) Run(ctx context.Context) error {
	if m.listener == nil {
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}))
	return serve(ctx, m.listener, "metrics", mux)
}
