//go:build linux

package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

const beatInterval = 5 * time.Millisecond

// Beat sends a small datagram to a [Server] every 5 ms and notes which come back:
// what a path change loses, without the patience that TCP adds.
type Beat struct {
	conn net.Conn
	wg   sync.WaitGroup
	stop chan struct{}

	mu      sync.Mutex
	sent    uint64
	back    uint64
	last    time.Time // when the last one came back
	longest time.Duration
}

// BeatResult says how a Beat went since its start or Reset.
type BeatResult struct {
	Sent, Back uint64
	Longest    time.Duration // without an answer, the time since the last one included
}

// StartBeat starts to send. The caller ends it with Stop.
func (h *Host) StartBeat(to netip.AddrPort) (*Beat, error) {
	c, err := h.DialUDP(to)
	if err != nil {
		return nil, err
	}
	b := &Beat{conn: c, stop: make(chan struct{}), last: time.Now()}
	b.wg.Go(b.send)
	b.wg.Go(b.receive)
	return b, nil
}

func (b *Beat) send() {
	tick := time.NewTicker(beatInterval)
	defer tick.Stop()
	msg := make([]byte, 64)
	for n := uint64(0); ; n++ {
		binary.BigEndian.PutUint64(msg, n)
		_, _ = b.conn.Write(msg) // an ICMP error about an earlier one
		b.mu.Lock()
		b.sent++
		b.mu.Unlock()
		select {
		case <-b.stop:
			return
		case <-tick.C:
		}
	}
}

func (b *Beat) receive() {
	buf := make([]byte, 1500)
	for {
		_, err := b.conn.Read(buf)
		select {
		case <-b.stop:
			return
		default:
		}
		if err != nil {
			continue
		}
		b.mu.Lock()
		now := time.Now()
		b.longest = max(b.longest, now.Sub(b.last))
		b.last = now
		b.back++
		b.mu.Unlock()
	}
}

// WaitBack waits until one has come back since the start or Reset.
func (b *Beat) WaitBack(ctx context.Context) error {
	return poll(ctx, beatInterval, func() error {
		if b.Result().Back == 0 {
			return errors.New("lab: no beat comes back")
		}
		return nil
	})
}

// Reset forgets what was until now.
func (b *Beat) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sent, b.back, b.longest, b.last = 0, 0, 0, time.Now()
}

// Result returns how it went.
func (b *Beat) Result() BeatResult {
	b.mu.Lock()
	defer b.mu.Unlock()
	return BeatResult{Sent: b.sent, Back: b.back, Longest: max(b.longest, time.Since(b.last))}
}

// Stop ends it and returns its Result.
func (b *Beat) Stop() BeatResult {
	r := b.Result()
	select {
	case <-b.stop:
	default:
		close(b.stop)
	}
	_ = b.conn.Close()
	b.wg.Wait()
	return r
}
