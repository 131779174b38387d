package hostnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// watchMax bounds how late changes are delivered while events keep coming.
const watchMax = time.Second

// events turns netlink events into calls.
type events struct {
	quiet    time.Duration                       // without events before a call, so that a burst costs one
	concerns func(m syscall.NetlinkMessage) bool // sees every message
	sockets  []*nl.NetlinkSocket
	wake     chan struct{} // 1 slot: an event came
	failed   chan error    // a socket is lost
}

func newEvents(quiet time.Duration, concerns func(m syscall.NetlinkMessage) bool) *events {
	return &events{quiet: quiet, concerns: concerns, wake: make(chan struct{}, 1), failed: make(chan error, 2)}
}

func (e *events) subscribe(protocol int, groups ...uint) error {
	s, err := nl.Subscribe(protocol, groups...)
	if err == nil {
		e.sockets = append(e.sockets, s)
	}
	return err
}

func (e *events) close() {
	for _, s := range e.sockets {
		s.Close() // wakes receive
	}
}

// run calls changed after events, until ctx is done or a socket is lost, and
// closes the sockets. When changed returns false it is called again later.
func (e *events) run(ctx context.Context, changed func() bool) error {
	var wg sync.WaitGroup
	for _, s := range e.sockets {
		wg.Go(func() { e.receive(s) })
	}
	err := e.deliver(ctx, changed)
	e.close()
	wg.Wait()
	return err
}

// receive reads one socket until it is closed.
func (e *events) receive(s *nl.NetlinkSocket) {
	for {
		msgs, _, err := s.Receive()
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case errors.Is(err, unix.ENOBUFS):
			e.signal() // events were lost: look at everything
			continue
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			e.failed <- fmt.Errorf("receive events: %w", err)
			return
		}
		for _, m := range msgs {
			if e.concerns(m) {
				e.signal()
			}
		}
	}
}

func (e *events) signal() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// deliver calls changed once it has been quiet after events, until ctx is done
// or a socket is lost.
func (e *events) deliver(ctx context.Context, changed func() bool) error {
	quiet := time.NewTimer(e.quiet)
	quiet.Stop()
	var first time.Time // of the events not yet delivered
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-e.failed:
			return err
		case <-e.wake:
			now := time.Now()
			if first.IsZero() {
				first = now
			}
			quiet.Reset(min(e.quiet, max(0, watchMax-now.Sub(first))))
		case <-quiet.C:
			first = time.Time{}
			if !changed() {
				quiet.Reset(watchMax)
			}
		}
	}
}
