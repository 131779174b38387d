package splice_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"corax/proxy/splice"
)

// empty waits until the kernel holds nothing of one kind: SIOCINQ, what c could read,
// or SIOCOUTQ, what it wrote and nobody has acknowledged.
func empty(t *testing.T, c *net.TCPConn, kind uint) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		n := -1
		if err := raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), kind) }); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are left", n)
		}
	}
}

// sayAndGo has a server say something and close, when nothing of it is left with the
// server's kernel.
func sayAndGo(t *testing.T, b *net.TCPConn, data []byte) {
	t.Helper()
	if _, err := b.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := b.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	empty(t, b, unix.SIOCOUTQ)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// A server that has said all closes, while the client, who has not read it yet, still
// speaks: a kubelet at the end of a copy, and the pings of kubectl.
func TestTailAfterClose(t *testing.T) {
	for _, tt := range []struct {
		name  string
		pings int  // the first one is answered by a reset, and one of the next ones fails
		ends  bool // the client says that it has said all
	}{
		{"speaks on", 20, false},
		{"speaks, and ends", 1, true},
		{"speaks on, and ends", 20, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, ia := tcp(t)
			ib, b := tcp(t)
			_ = a.SetReadBuffer(16 << 10)
			_ = ia.SetWriteBuffer(1 << 20)
			data := bytes.Repeat([]byte("tail"), 32<<10)
			done := make(chan error, 1)
			go func() { done <- new(splice.Pool).Join(t.Context(), ia, ib, splice.Config{}) }()
			sayAndGo(t, b, data)
			for range tt.pings {
				if _, err := a.Write([]byte("ping")); err != nil {
					t.Fatal(err)
				}
				empty(t, a, unix.SIOCOUTQ)
				empty(t, ia, unix.SIOCINQ)
			}
			if tt.ends {
				if err := a.CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			got, err := io.ReadAll(a)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d of %d bytes arrived, %v", len(got), len(data), err)
			}
			err = <-done
			if early := err == nil && tt.pings == 1; !early && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ENOTCONN) {
				t.Errorf("what was said at last was taken by nobody, and Join says %v", err)
			}
		})
	}
}

// A client that must say something before it reads on may do so, though nobody takes it.
func TestTailBehindMuchToSay(t *testing.T) {
	a, ia := tcp(t)
	ib, b := tcp(t)
	_ = a.SetReadBuffer(16 << 10)
	_ = ia.SetWriteBuffer(16 << 10)
	_ = ib.SetReadBuffer(1 << 20)
	data := bytes.Repeat([]byte("tail"), 64<<10)
	done := make(chan error, 1)
	go func() { done <- new(splice.Pool).Join(t.Context(), ia, ib, splice.Config{}) }()
	sayAndGo(t, b, data)
	if _, err := a.Write(make([]byte, 16<<20)); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(a); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d of %d bytes arrived, %v", len(got), len(data), err)
	}
	if err := <-done; !errors.Is(err, syscall.EPIPE) {
		t.Errorf("Join says %v", err)
	}
}

// A server whose client is gone learns it at once, and does not send a whole file to
// nobody.
func TestClientGone(t *testing.T) {
	s := join(t, new(splice.Pool), splice.Config{})
	if _, err := s.a.Write([]byte("all of it, please")); err != nil {
		t.Fatal(err)
	}
	if err := s.a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(s.b); err != nil {
		t.Fatal(err)
	}
	_ = s.a.Close()
	start, sent := time.Now(), 0
	var err error
	for block := make([]byte, 64<<10); err == nil; {
		var n int
		n, err = s.b.Write(block)
		sent += n
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) > 10*time.Second {
		t.Errorf("after %v and %d bytes: %v", time.Since(start), sent, err)
	}
	if err := <-s.done; !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Join says %v", err)
	}
}

// gone is an end that has said all, and takes nothing any more.
type gone struct{ duplex }

func (gone) Read([]byte) (int, error)  { return 0, io.EOF }
func (gone) Write([]byte) (int, error) { return 0, &net.OpError{Op: "write", Err: syscall.EPIPE} }

// slow is an end that nothing gets through to.
type slow struct{ duplex }

func (slow) HasAll() bool { return false }

func TestLastWordsTakeTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ia := memory()
		ib, _ := memory()
		done := make(chan error, 1)
		start := time.Now()
		go func() { done <- new(splice.Pool).Join(t.Context(), slow{ia}, gone{ib}, splice.Config{}) }()
		if _, err := a.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, syscall.EPIPE) || time.Since(start) != 5*time.Minute {
			t.Errorf("after %v Join says %v", time.Since(start), err)
		}
	})
}

// Two that are gone do not wait for each other.
func TestBothGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ia, _ := memory()
		ib, _ := memory()
		say := func(d duplex) net.Conn { return &lastWords{duplex: d} }
		if err := new(splice.Pool).Join(t.Context(), say(ia), say(ib), splice.Config{}); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("Join says %v", err)
		}
	})
}

// lastWords is an end that says something, and takes nothing.
type lastWords struct {
	duplex
	said bool
}

func (l *lastWords) Read(b []byte) (int, error) {
	if l.said {
		return 0, io.EOF
	}
	l.said = true
	return copy(b, "bye"), nil
}
func (l *lastWords) Write(b []byte) (int, error) { return gone{l.duplex}.Write(b) }

// reset is an end that is reset while somebody writes to it: the write is told, and the
// read, which comes sooner, takes it for an orderly end.
type reset struct{ duplex }

func (reset) Read([]byte) (int, error) {
	time.Sleep(time.Second)
	return 0, io.EOF
}

func (reset) Write([]byte) (int, error) {
	time.Sleep(time.Second + time.Millisecond)
	return 0, &net.OpError{Op: "write", Err: syscall.ECONNRESET}
}

// ends counts orderly ends.
type ends struct {
	duplex
	n int
}

func (e *ends) CloseWrite() error {
	e.n++
	return e.duplex.CloseWrite()
}

func TestResetIsNoEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ia := memory()
		ib, _ := memory()
		done := make(chan error, 1)
		counted := &ends{duplex: ia}
		go func() { done <- new(splice.Pool).Join(t.Context(), counted, reset{ib}, splice.Config{}) }()
		if _, err := a.Write([]byte("upload")); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Join says %v", err)
		}
		if counted.n != 0 {
			t.Error("a stream that was cut looks like one that has ended")
		}
	})
}

// secret is an end behind TLS that reads for ten seconds what it got.
type secret struct {
	duplex
	start  time.Time
	closed time.Duration
}

func (*secret) ConnectionState() (s tls.ConnectionState) { return s }

func (s *secret) HasAll() bool { return time.Since(s.start) >= 10*time.Second }

func (s *secret) CloseWrite() error {
	s.closed = time.Since(s.start)
	return s.duplex.CloseWrite()
}

// CloseWrite of crypto/tls fails when there is no room for five seconds.
func TestTLSEndsWhenThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ia := memory()
		ib, b := memory()
		s := &secret{duplex: ia, start: time.Now()}
		done := make(chan error, 1)
		go func() { done <- new(splice.Pool).Join(t.Context(), s, ib, splice.Config{}) }()
		_ = b.CloseWrite()
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || s.closed != 10*time.Second {
			t.Errorf("ended after %v: %v", s.closed, err)
		}
		_ = a.CloseWrite()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// stuck is an end that has said all, and does not read.
type stuck struct{ duplex }

func (stuck) Read([]byte) (int, error)    { return 0, io.EOF }
func (s stuck) Write([]byte) (int, error) { return s.out.Write([]byte("nobody reads")) }

// An end is passed on soon although a write to the other one takes long.
func TestEndBesideStuckWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ia := memory()
		ib, _ := memory()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- new(splice.Pool).Join(ctx, ia, stuck{ib}, splice.Config{}) }()
		start := time.Now()
		if _, err := a.Write([]byte("upload")); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || time.Since(start) > time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		cancel()
		<-done
	})
}
