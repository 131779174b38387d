//go:build linux

package lab

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestBulkAndBeat(t *testing.T) {
	a, b := shapedPair(t, LinkConfig{})
	if _, err := b.Serve(7000, second); err != nil {
		t.Fatal(err)
	}
	ctx := ctxFor(t, 30*time.Second)
	beat, err := a.StartBeat(netip.AddrPortFrom(second, 7000))
	if err != nil {
		t.Fatal(err)
	}
	bulk, err := StartBulk(ctx, a, b, netip.AddrPortFrom(second, 7001), 10<<20, 5<<20)
	if err != nil {
		t.Fatal(err)
	}
	for bulk.Moved() < 2<<20 && ctx.Err() == nil {
		_ = wait(ctx, 10*time.Millisecond)
	}
	before := beat.Result()
	a.Shape("eth0", LinkConfig{Out: Shape{Loss: 1}})
	_ = wait(ctx, 300*time.Millisecond)
	a.Shape("eth0", LinkConfig{})
	if err := bulk.Wait(ctx); err != nil {
		t.Error(err)
	}
	r := beat.Stop()
	if before.Back == 0 || before.Longest > 250*time.Millisecond {
		t.Errorf("before: %+v", before)
	}
	if r.Longest < 280*time.Millisecond || r.Back >= r.Sent-30 {
		t.Errorf("nothing passed for 300 ms: %+v", r)
	}
}

// TestBulkNoticesTheEnd resets the connection in the middle.
func TestBulkNoticesTheEnd(t *testing.T) {
	a, b := shapedPair(t, LinkConfig{})
	ctx := ctxFor(t, 30*time.Second)
	bulk, err := StartBulk(ctx, a, b, netip.AddrPortFrom(second, 7001), 10<<20, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	_ = bulk.in.Close()
	if err := bulk.Wait(ctx); err == nil {
		t.Error("a broken transfer ended well")
	}
}

func TestBlock(t *testing.T) {
	b := newBench(t, 1, NAT{Mapping: MapKeepPort})
	in := b.listen(b.inside[0], netip.MustParseAddrPort("0.0.0.0:4500"))
	outer := b.mapped(in, b.at[0][0])
	b.mapped(in, b.at[1][0])
	b.router.Block(benchServers[0])
	if b.passes(b.at[0][0], outer, in, false) {
		t.Error("a blocked address gets in")
	}
	if !b.passes(b.at[1][0], outer, in, true) {
		t.Error("another address does not get in")
	}
	if _, err := b.inside[0].Ping(ctxFor(t, 5*time.Second), benchServers[0], PingOptions{}); err != nil {
		t.Errorf("only UDP (%d) is blocked: %v", unix.IPPROTO_UDP, err)
	}
	b.router.BlockAll(benchServers[1])
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := b.inside[0].Ping(short, benchServers[1], PingOptions{}); err == nil {
		t.Error("a ping passes where everything is blocked")
	}
	b.router.Block()
	if !b.passes(b.at[0][0], outer, in, true) {
		t.Error("the address is still blocked")
	}
}
