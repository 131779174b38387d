package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"
)

// rebindEvery is how often a listener tries again for an address that it could
// not have: a node may get its address after the agent started.
const rebindEvery = 10 * time.Second

// maxConns bounds the connections of one TCP listener, which the node's whole
// network can reach.
const maxConns = 64

// tcpListener serves HTTP on one address of the node. That it cannot is logged
// once and shown in status, and never stops the agent.
type tcpListener struct {
	name    string // what it serves
	addr    netip.AddrPort
	handler http.Handler
	log     *slog.Logger
	retry   time.Duration // zero means rebindEvery

	problem atomic.Pointer[string]
}

// Problem says why nothing is served; empty: all is well.
func (t *tcpListener) Problem() string {
	if p := t.problem.Load(); p != nil {
		return *p
	}
	return ""
}

// Run serves until ctx ends. Without a valid address it has nothing to do.
func (t *tcpListener) Run(ctx context.Context) error {
	if !t.addr.IsValid() {
		return nil
	}
	for ctx.Err() == nil {
		if err := t.listen(ctx); err != nil {
			t.fail(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(cmp.Or(t.retry, rebindEvery)):
		}
	}
	return nil
}

// listen binds and serves until ctx ends or the listener fails.
func (t *tcpListener) listen(ctx context.Context) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", t.addr.String())
	if err != nil {
		return err
	}
	if t.problem.Swap(nil) != nil {
		t.log.Info("listening now", "service", t.name, "addr", t.addr)
	}
	return serve(ctx, netutil.LimitListener(ln, maxConns), t.handler, nil)
}

func (t *tcpListener) fail(err error) {
	text := fmt.Sprintf("%s is not served: %v", t.name, err)
	if old := t.problem.Swap(&text); old == nil {
		t.log.Warn("cannot listen", "service", t.name, "addr", t.addr, "err", err)
	}
}
