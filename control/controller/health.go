package controller

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
)

// health serves /healthz and /readyz for as long as the process lives, whatever
// becomes of the managers in it. It is healthy whenever it answers. It is ready
// also while another replica acts, and not while the API server is away or the
// guard keeps us off; then the answer says why.
type health struct {
	listener net.Listener // nil: nothing is served
	ready    atomic.Pointer[func() error]
}

// errNoAPI is why we are not ready before and between managers.
func errNoAPI() error { return errors.New("waiting for the API server") }

// newHealth listens at addr; empty: nowhere.
func newHealth(addr string) (*health, error) {
	h := &health{}
	h.Watch(errNoAPI)
	var err error
	if addr != "" {
		if h.listener, err = net.Listen("tcp", addr); err != nil {
			return nil, fmt.Errorf("health: %w", err)
		}
	}
	return h, nil
}

// close lets go of the address of one that does not run.
func (h *health) close() {
	if h.listener != nil {
		_ = h.listener.Close()
	}
}

// Watch makes ready what /readyz asks from now on.
func (h *health) Watch(ready func() error) { h.ready.Store(&ready) }

// Run answers until ctx is done.
func (h *health) Run(ctx context.Context) error {
	if h.listener == nil {
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", answer(func() error { return nil }))
	mux.HandleFunc("/readyz", answer(func() error { return (*h.ready.Load())() }))
	return serve(ctx, h.listener, "health", mux)
}

// answer is "ok", or 503 and why not.
func answer(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := check(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	}
}
