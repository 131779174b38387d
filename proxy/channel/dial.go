package channel

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// dialled is how one connection went.
type dialled struct {
	conn net.Conn
	err  error
}

// dial opens a connection to a gateway node. While there is no answer it dials again
// beside it, some times; the first answer counts, and the others are closed before
// anything was sent over them.
func (c *Channel) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan dialled)
	anew := time.NewTimer(anewEvery)
	defer anew.Stop()
	running := 0
	begin := func() {
		running++
		go func() {
			conn, err := c.cfg.Overlay(ctx, to)
			results <- dialled{conn, err}
		}()
	}
	begin()
	defer func() {
		cancel()
		for range running {
			if d := <-results; d.err == nil {
				_ = d.conn.Close()
			}
		}
	}()
	for begun := 1; ; {
		select {
		case d := <-results:
			running--
			return d.conn, d.err
		case <-anew.C:
			if begun++; begun < mostDials {
				anew.Reset(anewEvery)
			}
			begin()
		}
	}
}
