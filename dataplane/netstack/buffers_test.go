package netstack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
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
			// In short steps: a busy machine may keep the stacks from their packets for
			// some tenths of a second.
			const step = 50 * time.Millisecond
			if passed, err, ok := passBy(clock, step, 10*time.Second, sent); ok {
				t.Fatalf("the writer ended after %v: %v", passed, err)
			}
			go func() { b.(*stream).Hold(until); close(holds) }()
			for b.(*stream).ep.SocketOptions().GetReceiveBufferSize() == int64(tt.read) {
				runtime.Gosched() // until it has begun
			}
			if passed, err, ok := passBy(clock, step, time.Minute, sent); ok {
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

// TestRest: a connection rests when what it sent was taken, and nothing waits in it; at
// any other time its write buffer stays.
func TestRest(t *testing.T) {
	noLeaks(t)
	p := newPair(t)
	x, y := p.connect(t)
	a, b := x.(*stream), y.(*stream)
	const size = 64 << 10
	rests := func(c *stream, want bool) {
		t.Helper()
		if err := c.SetWriteBuffer(size); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(5 * time.Second) // acknowledgements take their time
		for c.Rest() != want {
			if time.Now().After(deadline) {
				t.Fatalf("it rests: %v", !want)
			}
			runtime.Gosched()
		}
		now := size
		if want {
			now = bufferMin
		}
		if got := int(c.ep.SocketOptions().GetSendBufferSize()); got != now {
			t.Errorf("the write buffer has %d bytes, want %d", got, now)
		}
	}
	rests(a, true)
	rests(b, true)
	_ = b.SetReadBuffer(48 << 10)
	_ = a.SetWriteBuffer(size)
	written := make(chan error, 1)
	data := make([]byte, 300<<10)
	go func() {
		_, err := a.Write(data)
		written <- errors.Join(err, a.CloseWrite())
	}()
	if _, err := io.ReadFull(b, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	rests(b, false) // unread
	rests(a, false) // not acknowledged
	if _, err := io.ReadFull(b, data[1:]); err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	rests(a, true) // the end was taken, too
	rests(b, true)
}
