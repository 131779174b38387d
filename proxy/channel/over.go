package channel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"corax/control"
	"corax/proxy"
	"corax/proxy/preamble"
)

// over asks the gateway nodes of a node's domain, one after the other.
func (c *Channel) over(ctx context.Context, t proxy.Target, n control.ProxyNode) (*Conn, *proxy.Refusal) {
	left := c.order(n.Via, time.Now())
	if len(left) == 0 {
		return nil, proxy.Refuse(proxy.CodeNoPath, fmt.Sprintf("gateway %s of node %s has no active gateway node", n.Gateway, t.Node))
	}
	var last *proxy.Refusal
	for len(left) > 0 {
		started := time.Now()
		conn, tried, err := c.connect(ctx, left)
		if err != nil {
			if last == nil {
				last = &proxy.Refusal{Code: proxy.CodeNoPath, Err: err, Text: fmt.Sprintf("no gateway node of %s, which has node %s, can be reached: %v", n.Gateway, t.Node, err)}
			}
			return nil, last
		}
		c.cfg.Counters.Took(proxy.StagePath, time.Since(started))
		// Those that were overtaken have not been heard: they are asked last.
		left = append(slices.DeleteFunc(without(left, conn.Via), func(a netip.Addr) bool {
			return slices.Contains(tried, a)
		}), tried...)
		started = time.Now()
		r := ask(ctx, conn, t)
		if r == nil {
			c.cfg.Counters.Took(proxy.StageNode, time.Since(started))
			c.judge(conn.Via, true)
			return c.keep(conn), nil
		}
		_ = conn.Close()
		if !r.Code.Again() || ctx.Err() != nil {
			return nil, r
		}
		if r.Code == proxy.CodeNoPath || r.Code == proxy.CodeOff || r.Code == proxy.CodeLimit || r.Code == proxy.CodeMemory {
			c.judge(conn.Via, false) // whatever node is asked for
		}
		last = r
	}
	return nil, last
}

func without(all []netip.Addr, a netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(all), func(x netip.Addr) bool { return x == a })
}

// attempt is how one connection to a gateway node went.
type attempt struct {
	via  netip.Addr
	conn proxy.CloseWriter
	err  error
}

// connect opens a connection to the first gateway node that answers. Each gets a
// second before the next is tried beside it. It also returns those that were tried
// and have neither answered nor failed. Who failed is noted, and who was overtaken and
// not heard at all.
func (c *Channel) connect(ctx context.Context, via []netip.Addr) (*Conn, []netip.Addr, error) {
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan attempt)
	next := time.NewTimer(0)
	defer next.Stop()
	var errs []string
	var running []netip.Addr
	begun, since := 0, map[netip.Addr]time.Time{}
	// Whoever is left is told to stop, and what comes all the same is closed.
	defer func() {
		cancel()
		for range running {
			if a := <-results; a.conn != nil {
				_ = a.conn.Close()
			}
		}
	}()
	for begun < len(via) || len(running) > 0 {
		select {
		case <-next.C:
			if begun == len(via) || ctx.Err() != nil {
				continue
			}
			a := via[begun]
			begun++
			running = append(running, a)
			since[a] = time.Now()
			go c.attempt(ctx, a, results)
			next.Reset(nextAfter)
		case a := <-results:
			running = without(running, a.via)
			if a.err == nil {
				for _, b := range running {
					if slices.Index(via, b) < slices.Index(via, a.via) {
						c.doubt(b, since[b])
					}
				}
				return &Conn{CloseWriter: a.conn, Via: a.via}, slices.Clone(running), nil
			}
			if ctx.Err() != nil {
				continue
			}
			c.judge(a.via, false)
			errs = append(errs, a.err.Error())
			next.Reset(0)
		case <-ctx.Done():
			errs = append(errs, context.Cause(ctx).Error())
			return nil, nil, errors.New(strings.Join(errs, "; "))
		}
	}
	if ctx.Err() != nil {
		errs = append(errs, context.Cause(ctx).Error())
	}
	return nil, nil, errors.New(strings.Join(errs, "; "))
}

// errSilent says that a gateway node is as good as dead.
var errSilent = fmt.Errorf("nothing came from it within %v", silentAfter)

func (c *Channel) attempt(ctx context.Context, via netip.Addr, results chan<- attempt) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if c.cfg.Heard != nil {
		began := time.Now()
		defer time.AfterFunc(silentAfter, func() {
			if c.cfg.Heard(via).Before(began) {
				cancel(errSilent)
			}
		}).Stop()
	}
	conn, err := c.dial(ctx, netip.AddrPortFrom(via, proxy.OverlayPort))
	a := attempt{via: via, err: err}
	if err == nil {
		var ok bool
		if a.conn, ok = conn.(proxy.CloseWriter); !ok {
			_ = conn.Close()
			a.err = errors.New("the connection cannot be half closed")
		}
	}
	results <- a
}

// ask asks an edge for the target; nil: it serves.
func ask(ctx context.Context, conn net.Conn, t proxy.Target) *proxy.Refusal {
	b, err := preamble.AppendAsk(nil, t)
	if err != nil {
		return &proxy.Refusal{Code: proxy.CodeMalformed, Text: err.Error(), Err: err}
	}
	_ = conn.SetDeadline(time.Now().Add(answerWithin))
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	_, err = conn.Write(b)
	var r *proxy.Refusal
	if err == nil {
		r, err = preamble.ReadAnswer(conn)
	}
	if !stop() && err == nil && r == nil {
		err = context.Cause(ctx) // its deadline may come at any moment
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return &proxy.Refusal{Code: proxy.CodeNoPath, Err: err, Text: fmt.Sprintf("the gateway node of node %s does not answer: %v", t.Node, err)}
	}
	_ = conn.SetDeadline(time.Time{})
	return r
}
