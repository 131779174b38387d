package fabric

import (
	"sync"
	"sync/atomic"
	"testing"

	"corax/dataplane"
)

// TestApplyDuringSend swaps between two configurations that send the same
// packets to two different outputs while several goroutines forward. Every
// batch must see one of them whole: it leaves undivided by one output.
func TestApplyDuringSend(t *testing.T) {
	const senders, rounds, size = 4, 300, 16
	f := New(Config{})
	var sent atomic.Int64
	whole := dataplane.SenderFunc(func(b []dataplane.Packet) {
		if len(b) != size {
			t.Errorf("batch of %d, want %d", len(b), size)
		}
		sent.Add(int64(len(b)))
	})
	a := gatewayConfig()
	b := gatewayConfig()
	for i := range b.Routes {
		if b.Routes[i].Via == dataplane.ViaWireGuard {
			b.Routes[i].Via = dataplane.ViaNetstack
		}
	}
	outs := Outputs{WireGuard: whole, VXLAN: whole, TUN: whole, Netstack: whole}
	if err := f.Apply(a, outs); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			p := spec{src: "10.1.1.5", dst: "10.2.0.5"}.udp(nil).build()
			ping := spec{src: overlayA.String(), dst: overlaySelf.String()}.udp(nil).build()
			for i := range rounds {
				src := p
				if i%3 == 0 {
					src = ping
				}
				batch := batchOf(size, src)
				for j := range batch {
					batch[j].VTEP = vtepA
				}
				f.From(FromVXLAN).Send(batch)
				f.Counters()
				f.Lookup(overlayA)
			}
		})
	}
	stop := make(chan struct{})
	applied := make(chan struct{})
	go func() {
		defer close(applied)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			cfg := a
			if i%2 == 0 {
				cfg = b
			}
			if err := f.Apply(cfg, outs); err != nil {
				t.Error(err)
			}
		}
	}()
	wg.Wait()
	close(stop)
	<-applied
	if got := sent.Load(); got != senders*rounds*size {
		t.Errorf("%d packets came out, want %d", got, senders*rounds*size)
	}
}

// TestReentry: an output may send into the fabric from within Send, as netstack
// does when it answers at once.
func TestReentry(t *testing.T) {
	f := New(Config{})
	var back int
	echo := dataplane.SenderFunc(func(b []dataplane.Packet) {
		for range b {
			f.From(FromNetstack).Send(batchOf(1, spec{src: overlaySelf.String(), dst: overlayPeer.String()}.echo(129).build()))
		}
	})
	wg := dataplane.SenderFunc(func(b []dataplane.Packet) { back += len(b) })
	if err := f.Apply(gatewayConfig(), Outputs{WireGuard: wg, Netstack: echo}); err != nil {
		t.Fatal(err)
	}
	f.From(FromWireGuard).Send(batchOf(3, spec{src: overlayPeer.String(), dst: overlaySelf.String()}.echo(128).build()))
	if back != 3 {
		t.Errorf("%d answers, want 3", back)
	}
}
