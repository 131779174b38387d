//go:build linux

package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// flowBlock is the size of one block of a Flow in bytes; its first eight are
// its number.
const flowBlock = 1024

// Flow is a long-running TCP connection that echoes numbered blocks, 50 a
// second, and notes when they stop coming back.
type Flow struct {
	conn net.Conn
	wg   sync.WaitGroup
	stop chan struct{}

	mu      sync.Mutex
	start   time.Time
	last    time.Time // when the last block came back
	longest time.Duration
	blocks  uint64
	err     error
	moved   chan struct{} // closed and replaced at every block
}

// FlowResult says how a Flow went.
type FlowResult struct {
	Bytes   int64         // that went and came back in order
	Longest time.Duration // without a block, the time since the last one included
}

// StartFlow connects to a [Server] and starts to echo. The caller ends it with
// Stop.
func (h *Host) StartFlow(ctx context.Context, to netip.AddrPort) (*Flow, error) {
	c, err := h.DialTCP(ctx, to)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte{askEcho}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	now := time.Now()
	f := &Flow{conn: c, stop: make(chan struct{}), start: now, last: now, moved: make(chan struct{})}
	f.wg.Go(f.send)
	f.wg.Go(f.receive)
	return f, nil
}

func (f *Flow) send() {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	block := make([]byte, flowBlock)
	for n := uint64(0); ; n++ {
		binary.BigEndian.PutUint64(block, n)
		if _, err := f.conn.Write(block); err != nil {
			f.fail(err)
			return
		}
		select {
		case <-f.stop:
			return
		case <-tick.C:
		}
	}
}

func (f *Flow) receive() {
	block, want := make([]byte, flowBlock), make([]byte, flowBlock)
	for n := uint64(0); ; n++ {
		if _, err := io.ReadFull(f.conn, block); err != nil {
			f.fail(err)
			return
		}
		binary.BigEndian.PutUint64(want, n)
		if !bytes.Equal(block, want) {
			f.fail(fmt.Errorf("block %d came back changed", n))
			return
		}
		f.mu.Lock()
		now := time.Now()
		f.longest = max(f.longest, now.Sub(f.last))
		f.last = now
		f.blocks++
		close(f.moved)
		f.moved = make(chan struct{})
		f.mu.Unlock()
	}
}

// fail keeps the first error, unless Stop caused it.
func (f *Flow) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.stop:
		return
	default:
	}
	if f.err == nil {
		f.err = err
	}
}

// Reset forgets the longest pause so far.
func (f *Flow) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.longest, f.last = 0, time.Now()
}

// WaitMove returns when a block that was still away has come back, or with an
// error when ctx ends or the connection broke.
func (f *Flow) WaitMove(ctx context.Context) error {
	f.mu.Lock()
	moved, err := f.moved, f.err
	f.mu.Unlock()
	if err != nil {
		return fmt.Errorf("lab: flow: %w", err)
	}
	select {
	case <-moved:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("lab: flow does not move: %w", context.Cause(ctx))
	}
}

// Result returns how the flow went until now, and what broke it.
func (f *Flow) Result() (FlowResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := FlowResult{Bytes: int64(f.blocks) * flowBlock, Longest: max(f.longest, time.Since(f.last))}
	if f.err != nil {
		return r, fmt.Errorf("lab: flow: %w", f.err)
	}
	return r, nil
}

// Stop ends the flow and returns its Result.
func (f *Flow) Stop() (FlowResult, error) {
	r, err := f.Result()
	f.mu.Lock()
	select {
	case <-f.stop:
	default:
		close(f.stop)
	}
	f.mu.Unlock()
	_ = f.conn.Close()
	f.wg.Wait()
	return r, err
}
