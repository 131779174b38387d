//go:build linux

package lab

import (
	"context"
	"net/netip"
	"testing"
	"time"
)

func TestFlowNoticesAPause(t *testing.T) {
	_, nodes := twoNodes(t, nil)
	a, b := nodes[0].Pods[0], nodes[1].Pods[0]
	if _, err := b.Serve(7000); err != nil {
		t.Fatal(err)
	}
	ctx := ctxFor(t, 30*time.Second)
	f, err := a.StartFlow(ctx, netip.AddrPortFrom(b.IP, 7000))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.WaitMove(ctx); err != nil {
		t.Fatal(err)
	}
	f.Reset()
	nodes[0].Unplug("eth0")
	pause, cancel := context.WithTimeout(ctx, 400*time.Millisecond)
	defer cancel()
	// A block may have been on its way back; then nothing moves.
	moved := 0
	for f.WaitMove(pause) == nil {
		moved++
	}
	if moved > 5 {
		t.Errorf("%d blocks moved over a link without a cable", moved)
	}
	nodes[0].Plug("eth0")
	if err := f.WaitMove(ctx); err != nil {
		t.Fatal(err)
	}
	r, err := f.Stop()
	if err != nil || r.Bytes == 0 || r.Longest < 200*time.Millisecond {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := f.Stop(); err != nil {
		t.Errorf("second Stop: %v", err)
	}
}

func TestFlowNoticesTheEnd(t *testing.T) {
	l := ForTest(t)
	h := l.Host("h")
	srv, err := h.Serve(7000)
	if err != nil {
		t.Fatal(err)
	}
	ctx := ctxFor(t, 10*time.Second)
	f, err := h.StartFlow(ctx, netip.MustParseAddrPort("127.0.0.1:7000"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.WaitMove(ctx); err != nil {
		t.Fatal(err)
	}
	if err := srv.Close(); err != nil {
		t.Fatal(err)
	}
	err = poll(ctx, 5*time.Millisecond, func() error {
		if _, err := f.Result(); err == nil {
			return context.DeadlineExceeded
		}
		return nil
	})
	if err != nil {
		t.Error("the flow goes on without its server")
	}
	if _, err := f.Stop(); err == nil {
		t.Error("Stop forgot the error")
	}
}
