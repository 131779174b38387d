package netstack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"
)

// TestBuffers: with buffers as small as they get, a reader that is busy elsewhere holds
// no more than them, and does not lose its connection, by small writes either.
func TestBuffers(t *testing.T) {
	for _, tt := range []struct{ read, write, chunk int }{
		{48 << 10, 8 << 10, 64 << 10},
		{48 << 10, 8 << 10, 100},
	} {
		t.Run(fmt.Sprintf("%d KiB by %d", tt.read>>10, tt.chunk), func(t *testing.T) {
			noLeaks(t)
			p, clock := newClockPair(t)
			a, b := p.connect(t)
			_ = a.SetDeadline(time.Time{})
			_ = b.SetDeadline(time.Time{})
			if err := errors.Join(a.(*stream).SetWriteBuffer(tt.write), b.(*stream).SetReadBuffer(tt.read)); err != nil {
				t.Fatal(err)
			}
			data := bytes.Repeat([]byte("corax"), 256<<10/5)
			written := make(chan int, 256<<10)
			until, holds := make(chan struct{}), make(chan struct{})
			sent := make(chan error, 1)
			go func() {
				var err error
				for rest := data; len(rest) > 0 && err == nil; {
					n := min(tt.chunk, len(rest))
					_, err = a.Write(rest[:n])
					rest = rest[n:]
					written <- n
				}
				sent <- errors.Join(err, a.(*stream).CloseWrite())
			}()
			if passed, err, ok := pass(clock, 10*time.Second, sent); ok {
				t.Fatalf("the writer ended after %v: %v", passed, err)
			}
			go func() { b.(*stream).Hold(until); close(holds) }()
			if passed, err, ok := pass(clock, time.Minute, sent); ok {
				t.Fatalf("the writer ended after %v of a reader that reads nothing: %v", passed, err)
			}
			held := 0
			for len(written) > 0 {
				held += <-written
			}
			t.Logf("%d bytes are held", held)
			if held > tt.read+tt.write+(128<<10) {
				t.Errorf("%d bytes are held", held)
			}
			close(until)
			<-holds
			if n := len(b.(*stream).held); n > tt.read {
				t.Errorf("%d bytes were taken", n)
			}
			got := make(chan []byte, 1)
			go func() {
				all, err := io.ReadAll(b)
				if err != nil {
					t.Errorf("read: %v", err)
				}
				got <- all
			}()
			_, all, ok := pass(clock, 10*time.Minute, got)
			if !ok || !bytes.Equal(all, data) {
				t.Errorf("%d of %d bytes arrived, all read: %v", len(all), len(data), ok)
			}
		})
	}
	var c stream
	if c.SetReadBuffer(1) == nil || c.SetWriteBuffer(1) == nil {
		t.Error("a buffer of one byte is taken")
	}
}
