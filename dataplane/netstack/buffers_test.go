package netstack

import (
	"bytes"
	"encoding/binary"
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

// gaps is a filter of packets that loses the segment at each of some offsets of what is
// sent, for as long as long says.
func gaps(offsets []uint32, long func(copies int) bool) func([]byte) bool {
	var first uint32
	var begun bool
	copies := make([]int, len(offsets))
	return func(p []byte) bool {
		const seq, dataOffset = ipv6Header + 4, ipv6Header + 12
		payload := len(p) - ipv6Header - int(p[dataOffset]>>4)*4
		if payload <= 0 {
			return true
		}
		at := binary.BigEndian.Uint32(p[seq:])
		if !begun {
			first, begun = at, true
		}
		for i, off := range offsets {
			if at-first <= off && off < at-first+uint32(payload) {
				copies[i]++
				return !long(copies[i])
			}
		}
		return true
	}
}

const ipv6Header = 40

// TestHoldWithAGap: what came behind a lost segment is in the buffer, and must not keep
// the segment out when it comes again, whether the window is open or shut.
func TestHoldWithAGap(t *testing.T) {
	const read = 48 << 10
	for _, tt := range []struct {
		name    string
		offsets []uint32
		long    time.Duration // all copies are lost, instead of one
	}{
		{"before", []uint32{2000}, 5 * time.Second},
		{"while it is shut", []uint32{read/2 - 4000, read/2 + 2000}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			noLeaks(t)
			p, clock := newClockPair(t)
			a, b := p.connect(t)
			_, _ = a.SetDeadline(time.Time{}), b.SetDeadline(time.Time{})
			if err := errors.Join(a.(*stream).SetWriteBuffer(8<<10), b.(*stream).SetReadBuffer(read)); err != nil {
				t.Fatal(err)
			}
			p.ab.lose(gaps(tt.offsets, func(copies int) bool { return tt.long > 0 || copies == 1 }))
			sent := make(chan error, 1)
			go func() {
				var err error
				for range 2 * read / 100 {
					if _, err = a.Write(make([]byte, 100)); err != nil {
						break
					}
				}
				sent <- err
			}()
			const step = 50 * time.Millisecond
			if passed, err, ok := passBy(clock, step, tt.long, sent); ok {
				t.Fatalf("the writer ended after %v: %v", passed, err)
			}
			if tt.long > 0 {
				p.ab.lose(nil)
			}
			until, holds := make(chan struct{}), make(chan struct{})
			go func() { b.(*stream).Hold(until); close(holds) }()
			if passed, err, ok := passBy(clock, step, time.Minute, sent); ok {
				t.Fatalf("the writer ended after %v: %v", passed, err)
			}
			close(until)
			<-holds
			if n := len(b.(*stream).held); n < read/2 {
				t.Errorf("%d bytes were taken", n)
			}
			_, _ = a.Close(), b.Close()
		})
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
