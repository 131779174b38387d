package outbound

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// Serve accepts connections until ctx ends, then closes ln and joins the handlers.
// A handler has the connection, and closes it; ctx ends it. Of more than most at
// once the newest are closed, and refused is called for each.
func Serve(ctx context.Context, ln net.Listener, most int, refused func(), handle func(ctx context.Context, c net.Conn)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	slots := make(chan struct{}, most)
	for {
		c, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			// No descriptors left, for example: those who wait are not lost.
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			refused()
			_ = c.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			handle(ctx, c)
		})
	}
}

// Idle is how long a UDP flow with a port may rest: a question to a name server, one
// that nobody answered, and one that goes both ways.
func Idle(port uint16, twoWay bool) time.Duration {
	switch {
	case port == 53:
		return 10 * time.Second
	case twoWay:
		return 180 * time.Second
	default:
		return 60 * time.Second
	}
}
