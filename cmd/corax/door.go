package main

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"
)

// door is one listener for programs of this node. The agent does without it: what
// keeps it from listening is a problem, and it tries again.
type door struct {
	kind  string
	at    doorAt
	serve func(ctx context.Context, ln net.Listener) error
	log   *slog.Logger

	mu      sync.Mutex
	problem string
}

// Run listens and serves until ctx ends.
func (d *door) Run(ctx context.Context) error {
	for {
		ln, err := d.at.listen()
		if err == nil {
			d.set("")
			d.log.Info("a proxy listens", "kind", d.kind, "address", d.at.String())
			err = d.serve(ctx, ln)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			d.set("the proxy " + d.kind + " does not listen: " + err.Error())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryEvery):
		}
	}
}

func (d *door) set(problem string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.problem = problem
}

// Problem says why it does not listen; empty: it does.
func (d *door) Problem() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.problem
}
