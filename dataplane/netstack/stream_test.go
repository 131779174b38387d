package netstack

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/faketime"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// clockPair is a pair on a clock that the test moves.
func newClockPair(t *testing.T) (*pair, *faketime.ManualClock) {
	t.Helper()
	clock := faketime.NewManualClock()
	p := &pair{ab: &wire{}, ba: &wire{}}
	stacks := [2]*Stack{}
	for i, cfg := range []Config{{Overlay: addrA, Send: p.ab}, {Overlay: addrB, Send: p.ba}} {
		cfg.clock = clock
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		stacks[i] = s
	}
	p.a, p.b = stacks[0], stacks[1]
	p.ab.to, p.ba.to = p.b, p.a
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, s := range stacks {
		wg.Go(func() { _ = s.Run(ctx) })
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	return p, clock
}

// pass moves the clock on by d, in steps between which packets go to and fro, until
// done yields or the time is over. It returns how much passed.
func pass[T any](clock *faketime.ManualClock, d time.Duration, done <-chan T) (passed time.Duration, v T, ok bool) {
	return passBy(clock, 250*time.Millisecond, d, done)
}

// passBy is pass in steps of a certain length: short ones where much has to be done
// meanwhile, for which no step waits.
func passBy[T any](clock *faketime.ManualClock, step, d time.Duration, done <-chan T) (passed time.Duration, v T, ok bool) {
	for ; passed < d; passed += step {
		select {
		case v := <-done:
			return passed, v, true
		case <-time.After(2 * time.Millisecond):
			clock.Advance(step)
		}
	}
	return passed, v, false
}

func nothing([]byte) bool { return false }

func TestDeadEndIsNoticed(t *testing.T) {
	for _, tt := range []struct {
		name  string
		write bool
	}{
		{"at rest", false}, {"with bytes on their way", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			noLeaks(t)
			p, clock := newClockPair(t)
			a, _ := p.connect(t)
			p.ab.lose(nothing)
			p.ba.lose(nothing)
			if tt.write {
				if _, err := a.Write(make([]byte, 100<<10)); err != nil {
					t.Fatal(err)
				}
			}
			failed := make(chan error, 1)
			go func() {
				_, err := a.Read(make([]byte, 1))
				failed <- err
			}()
			passed, err, ok := pass(clock, 45*time.Second, failed)
			if !ok {
				t.Fatalf("nobody noticed within %v", passed)
			}
			if err == nil || errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "timed out") {
				t.Errorf("after %v: %v", passed, err)
			}
			if passed < 15*time.Second {
				t.Errorf("given up after %v: a path that is being changed takes longer", passed)
			}
		})
	}
}

// A reader that is busy elsewhere does not lose its connection.
func TestStalledReaderKeepsItsConnection(t *testing.T) {
	noLeaks(t)
	p, clock := newClockPair(t)
	a, b := p.connect(t)
	data := bytes.Repeat([]byte("corax"), 4<<20/5*3)
	sent := make(chan error, 1)
	go func() {
		_, err := a.Write(data)
		sent <- errors.Join(err, a.(*stream).CloseWrite())
	}()
	if passed, err, ok := pass(clock, 5*time.Minute, sent); ok {
		t.Fatalf("the writer ended after %v of a reader that reads nothing: %v", passed, err)
	}
	got := make(chan []byte, 1)
	go func() {
		all, err := io.ReadAll(b)
		if err != nil {
			t.Errorf("read: %v", err)
		}
		got <- all
	}()
	_, all, ok := passBy(clock, 5*time.Millisecond, 5*time.Minute, got)
	if !ok || !bytes.Equal(all, data) {
		t.Errorf("%d of %d bytes arrived, all read: %v", len(all), len(data), ok)
	}
	if err := <-sent; err != nil {
		t.Errorf("write: %v", err)
	}
}

func TestLingerZeroResets(t *testing.T) {
	noLeaks(t)
	p := newPair(t)
	a, b := p.connect(t)
	if _, err := b.Write([]byte("partly")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(a, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	if err := b.(*stream).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	_ = b.Close()
	if _, err := a.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a stream that was broken off ended with %v", err)
	}
	if err := a.(*stream).SetLinger(5); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("SetLinger(5) = %v", err)
	}
}

// Who writes to somebody that is gone learns whether that one had said all, and reads
// what it had said.
func TestWriteToOneThatIsGone(t *testing.T) {
	noLeaks(t)
	for _, tt := range []struct {
		name  string
		leave func(*stream)
		want  error
	}{
		{"said all", func(b *stream) {
			_ = b.CloseWrite()
			for tcp.EndpointState(b.ep.State()) != tcp.StateFinWait2 { // all of it is acknowledged
				runtime.Gosched()
			}
			_ = b.Close()
		}, syscall.EPIPE},
		{"broke off", func(b *stream) { _ = b.SetLinger(0); _ = b.Close() }, syscall.ECONNRESET},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPair(t)
			a, b := p.connect(t)
			_ = a.SetDeadline(time.Now().Add(20 * time.Second))
			data := bytes.Repeat([]byte("tail"), 10_000)
			if _, err := b.Write(data); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(a, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			tt.leave(b.(*stream))
			var err error
			for err == nil { // the first ones are on their way before the answer comes
				_, err = a.Write([]byte("ping"))
			}
			if !errors.Is(err, tt.want) {
				t.Errorf("write: %v", err)
			}
			if errors.Is(tt.want, syscall.ECONNRESET) {
				return // the reset may have overtaken data
			}
			if got, err := io.ReadAll(a); err != nil || !bytes.Equal(got, data[1:]) {
				t.Errorf("%d of %d bytes arrived, %v", len(got), len(data)-1, err)
			}
		})
	}
}

// What Hold was told is not lost to who reads next.
func TestHoldKeepsTheError(t *testing.T) {
	noLeaks(t)
	p := newPair(t)
	a, b := p.connect(t)
	if _, err := b.Write([]byte("partly")); err != nil {
		t.Fatal(err)
	}
	held := make(chan struct{})
	go func() {
		defer close(held)
		a.(*stream).Hold(make(chan struct{}))
	}()
	_ = b.(*stream).SetLinger(0)
	_ = b.Close()
	<-held
	if got, err := io.ReadAll(a); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a stream that was broken off ended with %q, %v", got, err)
	}
	if _, err := a.Write([]byte("ping")); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("write: %v", err)
	}
}

func TestStreamDeadline(t *testing.T) {
	noLeaks(t)
	p := newPair(t)
	a, _ := p.connect(t)
	_ = a.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	_ = a.SetWriteDeadline(time.Now().Add(-time.Second))
	if _, err := a.Write(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write: %v", err)
	}
}

func TestListenerCloses(t *testing.T) {
	noLeaks(t)
	p := newPair(t)
	l, err := p.b.ListenTCP(0)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	_ = l.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept = %v", err)
	}
}

// A connection at rest keeps nothing of what was written to it.
func TestWriteKeepsNothing(t *testing.T) {
	noLeaks(t)
	p := newPair(t)
	a, b := p.connect(t)
	freed := make(chan struct{})
	func() {
		block := new([64 << 10]byte)
		runtime.AddCleanup(block, func(done chan struct{}) { close(done) }, freed)
		if _, err := a.Write(block[:]); err != nil {
			t.Fatal(err)
		}
	}()
	if _, err := io.ReadFull(b, make([]byte, 64<<10)); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(10 * time.Second)
	for {
		runtime.GC()
		select {
		case <-freed:
			return
		case <-deadline:
			t.Fatal("what was written is still held")
		case <-time.After(time.Millisecond):
		}
	}
}

func TestWriteDeadlineWhileFull(t *testing.T) {
	noLeaks(t)
	p := newPair(t)
	a, _ := p.connect(t)
	data := make([]byte, 32<<20)
	_ = a.SetWriteDeadline(time.Now().Add(time.Second))
	n, err := a.Write(data)
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n == len(data) {
		t.Fatalf("wrote %d, %v", n, err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("behind the deadline: %v", err)
	}
	_ = a.SetWriteDeadline(time.Time{})
	again := make(chan error, 1)
	go func() {
		_, err := a.Write(data)
		again <- err
	}()
	_ = a.SetDeadline(time.Unix(1, 0)) // before or while it waits
	if err := <-again; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a deadline that comes while it waits: %v", err)
	}
}
