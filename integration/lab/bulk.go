//go:build linux

package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Bulk is a large TCP transfer in one direction whose bytes are checked, at a
// limited rate, so that something can happen meanwhile.
type Bulk struct {
	out, in net.Conn
	wg      sync.WaitGroup
	size    int64
	moved   atomic.Int64
	first   atomic.Int64 // when the first byte had come, in ns of Unix time
	pause   atomic.Int64 // the longest between two arrivals, in ns
	sent    []byte       // SHA-256
	got     []byte
	errs    [2]error
	done    chan struct{}
}

// StartBulk sends size random bytes from one host to another, which listens on
// the address, at most rate a second. The caller ends it with Wait or Close.
func StartBulk(ctx context.Context, from, to *Host, at netip.AddrPort, size int64, rate int) (*Bulk, error) {
	ln, err := to.ListenTCP(at)
	if err != nil {
		return nil, err
	}
	defer func() { _ = ln.Close() }()
	b := &Bulk{size: size, done: make(chan struct{})}
	if b.out, err = from.DialTCP(ctx, at); err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = ln.SetDeadline(time.Unix(1, 0)) })()
	if b.in, err = ln.Accept(); err != nil {
		return nil, errors.Join(err, b.out.Close())
	}
	b.wg.Go(func() { b.errs[0] = b.send(rate) })
	b.wg.Go(func() { b.errs[1] = b.receive() })
	go func() {
		b.wg.Wait()
		close(b.done)
	}()
	return b, nil
}

func (b *Bulk) send(rate int) error {
	var seed [32]byte
	binary.NativeEndian.PutUint64(seed[:], rand.Uint64())
	random, sum := rand.NewChaCha8(seed), sha256.New()
	const slice = 5 * time.Millisecond
	tick := time.NewTicker(slice)
	defer tick.Stop()
	block := make([]byte, max(rate/int(time.Second/slice), 1))
	for left := b.size; left > 0; {
		p := block[:min(left, int64(len(block)))]
		_, _ = random.Read(p) // never fails
		sum.Write(p)
		if _, err := b.out.Write(p); err != nil {
			return err
		}
		left -= int64(len(p))
		<-tick.C
	}
	b.sent = sum.Sum(nil)
	return b.out.(*net.TCPConn).CloseWrite()
}

func (b *Bulk) receive() error {
	sum, buf := sha256.New(), make([]byte, 64<<10)
	var last time.Time
	for {
		n, err := b.in.Read(buf)
		now := time.Now()
		if last.IsZero() && n > 0 {
			b.first.Store(now.UnixNano())
		} else if n > 0 {
			b.pause.Store(max(b.pause.Load(), int64(now.Sub(last))))
		}
		last = now
		sum.Write(buf[:n])
		b.moved.Add(int64(n))
		if errors.Is(err, io.EOF) {
			b.got = sum.Sum(nil)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Moved returns how many bytes have arrived.
func (b *Bulk) Moved() int64 { return b.moved.Load() }

// First returns when the first byte had arrived; zero: none has.
func (b *Bulk) First() time.Time {
	if ns := b.first.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// Pause returns the longest time between two arrivals so far.
func (b *Bulk) Pause() time.Duration { return time.Duration(b.pause.Load()) }

// Wait waits until everything has arrived and is what was sent, or ctx ends.
func (b *Bulk) Wait(ctx context.Context) error {
	select {
	case <-b.done:
	case <-ctx.Done():
		_ = b.Close()
		return fmt.Errorf("lab: bulk: %d of %d bytes arrived: %w", b.Moved(), b.size, context.Cause(ctx))
	}
	_ = b.Close()
	if err := errors.Join(b.errs[:]...); err != nil {
		return fmt.Errorf("lab: bulk: %d of %d bytes arrived: %w", b.Moved(), b.size, err)
	}
	if b.Moved() != b.size || !bytes.Equal(b.sent, b.got) {
		return fmt.Errorf("lab: bulk: %d of %d bytes arrived, with another checksum", b.Moved(), b.size)
	}
	return nil
}

// Close ends the transfer, if it has not ended, and waits for its goroutines.
func (b *Bulk) Close() error {
	_, _ = b.out.Close(), b.in.Close()
	<-b.done
	return nil
}
