package splice_test

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"corax/proxy/splice"
)

// held is a connection that is looked after while it is not read.
type held struct {
	duplex
	holds, held, broken atomic.Int32 // so far, now, reads while it was held
}

func (h *held) Hold(until <-chan struct{}) {
	h.holds.Add(1)
	h.held.Add(1)
	<-until
	time.Sleep(time.Second) // there is something to put in order
	h.held.Add(-1)
}

func (h *held) Read(b []byte) (int, error) {
	if h.held.Load() != 0 {
		h.broken.Add(1)
	}
	return h.duplex.Read(b)
}

// around is what a connection may be wrapped in.
type around struct{ net.Conn }

func (a around) NetConn() net.Conn { return a.Conn }

// TestHold: a source is held from when its destination is stalled until that takes
// something again, or until the stream ends.
func TestHold(t *testing.T) {
	for _, ends := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			a, ia := memory()
			ib, b := memory()
			src := &held{duplex: ia}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- new(splice.Pool).Join(ctx, around{src}, ib, splice.Config{}) }()
			for i := range int32(2) {
				go func() { _, _ = a.Write([]byte("hello")) }()
				time.Sleep(9 * time.Second)
				synctest.Wait()
				if n := src.holds.Load(); n != i {
					t.Fatalf("held %d times before stall %d", n, i)
				}
				time.Sleep(time.Hour)
				if h, n := src.held.Load(), src.holds.Load(); h != 1 || n != i+1 {
					t.Fatalf("stalled: held %d times, now %d", n, h)
				}
				if ends && i == 1 {
					break
				}
				if _, err := io.ReadFull(b, make([]byte, 5)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if src.held.Load() != 0 {
					t.Fatal("it is held although nothing is stalled")
				}
			}
			cancel()
			if err := <-done; err == nil {
				t.Error("it did not break off")
			}
			if src.held.Load() != 0 || src.broken.Load() != 0 {
				t.Errorf("held at the end: %d; read %d times while it was held", src.held.Load(), src.broken.Load())
			}
			_, _ = a.Close(), b.Close()
		})
	}
}
