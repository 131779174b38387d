package splice_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"corax/proxy/splice"
)

// tcp returns the two ends of a connection.
func tcp(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	x, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	y, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{x, y} {
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return x.(*net.TCPConn), y.(*net.TCPConn)
}

// stream is a join between two outer ends.
type stream struct {
	a, b   *net.TCPConn // of the test
	done   chan error
	cancel context.CancelCauseFunc
}

func join(t testing.TB, pool *splice.Pool, cfg splice.Config) stream {
	t.Helper()
	a, ia := tcp(t)
	ib, b := tcp(t)
	_ = ia.SetDeadline(time.Time{})
	_ = ib.SetDeadline(time.Time{})
	ctx, cancel := context.WithCancelCause(context.Background())
	s := stream{a, b, make(chan error, 1), cancel}
	go func() { s.done <- pool.Join(ctx, ia, ib, cfg) }()
	t.Cleanup(func() { cancel(nil) })
	return s
}

func TestBothWaysAndHalfClose(t *testing.T) {
	var up, down, firsts atomic.Uint64
	s := join(t, new(splice.Pool), splice.Config{
		Up: []*atomic.Uint64{&up}, Down: []*atomic.Uint64{&down}, First: func() { firsts.Add(1) },
	})
	data := make([]byte, 8<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	var wg sync.WaitGroup
	got := [2][32]byte{}
	for i, ends := range [2][2]*net.TCPConn{{s.a, s.b}, {s.b, s.a}} {
		wg.Go(func() {
			if _, err := ends[0].Write(data); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			h := sha256.New()
			if _, err := io.CopyN(h, ends[1], int64(len(data))); err != nil {
				t.Error(err)
			}
			h.Sum(got[i][:0])
		})
	}
	wg.Wait()
	if want := sha256.Sum256(data); got[0] != want || got[1] != want {
		t.Error("other bytes arrived than were sent")
	}

	// a has said all; b goes on.
	_ = s.a.CloseWrite()
	if rest, err := io.ReadAll(s.b); err != nil || len(rest) != 0 {
		t.Fatalf("behind the end came %q, %v", rest, err)
	}
	for range 3 {
		if _, err := s.b.Write([]byte("more")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(s.a, make([]byte, 4)); err != nil {
			t.Fatalf("after a half-close: %v", err)
		}
	}
	_ = s.b.Close()
	if rest, err := io.ReadAll(s.a); err != nil || len(rest) != 0 {
		t.Errorf("behind the end came %q, %v", rest, err)
	}
	if err := <-s.done; err != nil {
		t.Errorf("Join = %v", err)
	}
	if up.Load() != uint64(len(data)) || down.Load() != uint64(len(data)+12) || firsts.Load() != 1 {
		t.Errorf("counted %d up, %d down, %d first bytes", up.Load(), down.Load(), firsts.Load())
	}
}

// Whatever breaks a stream off must not look like its end.
func TestBrokenOffIsNoEnd(t *testing.T) {
	stop := errors.New("the agent stops")
	for _, tt := range []struct {
		name string
		do   func(stream)
		want func(error) bool
		ends []func(stream) *net.TCPConn
	}{
		{
			"the context ends", func(s stream) { s.cancel(stop) },
			func(err error) bool { return errors.Is(err, stop) },
			[]func(stream) *net.TCPConn{func(s stream) *net.TCPConn { return s.a }, func(s stream) *net.TCPConn { return s.b }},
		},
		{
			"a is reset", func(s stream) { splice.Abort(s.a) },
			func(err error) bool { e, ok := errors.AsType[*splice.EndError](err); return ok && !e.B },
			[]func(stream) *net.TCPConn{func(s stream) *net.TCPConn { return s.b }},
		},
		{
			"b is reset", func(s stream) { splice.Abort(s.b) },
			func(err error) bool { e, ok := errors.AsType[*splice.EndError](err); return ok && e.B },
			[]func(stream) *net.TCPConn{func(s stream) *net.TCPConn { return s.a }},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := join(t, new(splice.Pool), splice.Config{})
			if _, err := s.a.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(s.b, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			tt.do(s)
			select {
			case err := <-s.done:
				if !tt.want(err) {
					t.Errorf("Join = %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("the stream goes on")
			}
			for _, end := range tt.ends {
				if _, err := end(s).Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
					t.Errorf("an end reads %v, as of a complete stream", err)
				}
			}
		})
	}
}

// duplex is a connection in memory that can be half closed.
type duplex struct {
	net.Conn          // reads
	out      net.Conn // writes
}

func (d duplex) Write(b []byte) (int, error) { return d.out.Write(b) }
func (d duplex) CloseWrite() error           { return d.out.Close() }
func (d duplex) Close() error                { return errors.Join(d.Conn.Close(), d.out.Close()) }

func memory() (a, b duplex) {
	ar, bw := net.Pipe()
	br, aw := net.Pipe()
	return duplex{ar, aw}, duplex{br, bw}
}

func inBubble(t *testing.T, cfg splice.Config, f func(a, b duplex, done chan error)) {
	synctest.Test(t, func(t *testing.T) {
		a, ia := memory()
		ib, b := memory()
		done := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- new(splice.Pool).Join(ctx, ia, ib, cfg) }()
		f(a, b, done)
		cancel()
		_, _ = a.Close(), b.Close()
	})
}

func TestStallIsCountedOnce(t *testing.T) {
	var stalls, up atomic.Uint64
	inBubble(t, splice.Config{Stalls: &stalls, Up: []*atomic.Uint64{&up}}, func(a, b duplex, done chan error) {
		if _, err := a.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if n := stalls.Load(); n != 0 {
			t.Errorf("%d stalls after nine seconds", n)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := stalls.Load(); n != 1 {
			t.Errorf("%d stalls after an hour in which b took nothing", n)
		}
		buf := make([]byte, 5)
		if _, err := io.ReadFull(b, buf); err != nil || string(buf) != "hello" {
			t.Errorf("after the stall: %q, %v", buf, err)
		}
		synctest.Wait()
		if up.Load() != 5 {
			t.Errorf("%d bytes counted", up.Load())
		}
	})
}

func TestRest(t *testing.T) {
	inBubble(t, splice.Config{}, func(a, b duplex, done chan error) {
		time.Sleep(1000 * time.Hour)
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("a whole stream at rest was ended: %v", err)
		default:
		}
		_ = a.CloseWrite()
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Fatalf("b reads %v", err)
		}
		for range 5 { // half a stream lives while something moves
			time.Sleep(50 * time.Minute)
			if _, err := b.Write([]byte("log")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(a, make([]byte, 3)); err != nil {
				t.Fatal(err)
			}
		}
		before := time.Now()
		if err := <-done; !errors.Is(err, splice.ErrHalfIdle) || time.Since(before) != time.Hour {
			t.Errorf("half a stream at rest ended after %v: %v", time.Since(before), err)
		}
	})
}

// A stream that has been busy and rests now holds little.
func TestMemoryAtRest(t *testing.T) {
	const streams = 200
	before := used()
	pool := new(splice.Pool)
	var all []stream
	block := bytes.Repeat([]byte("x"), 1<<20)
	for range streams {
		s := join(t, pool, splice.Config{})
		all = append(all, s)
		go func() { _, _ = s.a.Write(block) }()
		if _, err := io.ReadFull(s.b, make([]byte, len(block))); err != nil {
			t.Fatal(err)
		}
	}
	// Every large buffer is back once the linger is over.
	deadline := time.Now().Add(10 * time.Second)
	each := uint64(0)
	for tick := time.NewTicker(100 * time.Millisecond); time.Now().Before(deadline); <-tick.C {
		if each = (used() - min(before, used())) / streams; each < 40<<10 {
			break
		}
	}
	if each > 40<<10 {
		t.Errorf("%d KB per stream at rest", each>>10)
	}
	t.Logf("%d KB per stream at rest, with the test's own ends", each>>10)
	for _, s := range all {
		s.cancel(nil)
		<-s.done
	}
}

func used() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

func BenchmarkJoin(b *testing.B) {
	s := join(b, new(splice.Pool), splice.Config{})
	_ = s.a.SetDeadline(time.Time{})
	_ = s.b.SetDeadline(time.Time{})
	block := make([]byte, 64<<10)
	b.SetBytes(int64(len(block)))
	b.ReportAllocs()
	go func() { _, _ = io.Copy(io.Discard, s.b) }()
	for b.Loop() {
		if _, err := s.a.Write(block); err != nil {
			b.Fatal(err)
		}
	}
}
