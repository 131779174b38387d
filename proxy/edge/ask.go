package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"corax/proxy"
	"corax/proxy/preamble"
	"corax/proxy/splice"
)

// dial reads what a caller wants, and dials it.
func (s *Server) dial(ctx context.Context, c net.Conn) (proxy.Target, netip.Addr, net.Conn, *proxy.Refusal) {
	target, r := s.ask(c)
	if r != nil {
		return target, netip.Addr{}, nil, r
	}
	addr, r := s.plan.Load().find(target)
	if r != nil {
		return target, netip.Addr{}, nil, r
	}
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	started := time.Now()
	to := netip.AddrPortFrom(addr, target.Port)
	node, err := s.cfg.Dial(ctx, "tcp", to.String())
	if err != nil {
		return target, addr, nil, dialRefusal(ctx, target, to, err)
	}
	s.cfg.Counters.Took(proxy.StageNode, time.Since(started))
	return target, addr, node, nil
}

// ask reads the ask of a stream.
func (s *Server) ask(c net.Conn) (proxy.Target, *proxy.Refusal) {
	_ = c.SetReadDeadline(time.Now().Add(askWithin))
	target, err := preamble.ReadAsk(c)
	_ = c.SetReadDeadline(time.Time{})
	switch {
	case err == nil:
		return target, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return target, &proxy.Refusal{Code: proxy.CodeSlow, Text: fmt.Sprintf("no request within %v", askWithin), Err: err}
	default:
		return target, &proxy.Refusal{Code: proxy.CodeMalformed, Text: err.Error(), Err: err}
	}
}

// find returns the address of a node that may be dialled at the port.
func (p *plan) find(t proxy.Target) (netip.Addr, *proxy.Refusal) {
	addr, ok := p.nodes[t.Node]
	switch {
	case !ok:
		return addr, proxy.Refuse(proxy.CodeUnknownNode, fmt.Sprintf("node %s is not one of gateway %s", t.Node, p.gateway))
	case !p.ports[t.Port]:
		return addr, proxy.Refuse(proxy.CodePort, fmt.Sprintf("port %d of node %s is not one of %v, which may be dialled", t.Port, t.Node, p.sortedPorts()))
	}
	if err := proxy.CheckAddr(addr); err != nil {
		return addr, &proxy.Refusal{Code: proxy.CodeDial, Text: fmt.Sprintf("node %s is not dialled: %v", t.Node, err), Err: err}
	}
	return addr, nil
}

// dialRefusal says how a dial failed.
func dialRefusal(ctx context.Context, t proxy.Target, to netip.AddrPort, err error) *proxy.Refusal {
	cause := err
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Err != nil {
		cause = e.Err
	}
	if ctx.Err() != nil {
		cause = context.Cause(ctx)
		if r, ok := errors.AsType[*proxy.Refusal](cause); ok {
			return r
		}
		cause = fmt.Errorf("no answer within %v", dialWithin)
	}
	return &proxy.Refusal{
		Code: proxy.CodeDial, Err: err,
		Text: "dial node " + t.Node + " at " + to.Addr().String() + ", port " + strconv.Itoa(int(to.Port())) + ": " + cause.Error(),
	}
}

// answer tells the caller; nil says that it is served. It returns a refusal when
// the caller does not take it.
func (s *Server) answer(c net.Conn, r *proxy.Refusal) *proxy.Refusal {
	_ = c.SetWriteDeadline(time.Now().Add(askWithin))
	_, err := c.Write(preamble.AppendAnswer(nil, r))
	_ = c.SetWriteDeadline(time.Time{})
	if err != nil {
		return &proxy.Refusal{Code: proxy.CodeSlow, Text: "the caller is gone: " + err.Error(), Err: err}
	}
	return nil
}

// turnAway refuses a caller before it has said anything.
func (s *Server) turnAway(ctx context.Context, c net.Conn, caller netip.AddrPort, r *proxy.Refusal) {
	select {
	case s.away <- struct{}{}:
		defer func() { <-s.away }()
	default:
		s.note(caller, proxy.Target{}, r)
		splice.Abort(c)
		return
	}
	stop := context.AfterFunc(ctx, func() { splice.Abort(c) })
	defer stop()
	target, _ := s.ask(c)
	s.refuse(c, caller, target, r)
}

// refuse tells a caller that it is not served, notes that, and closes.
func (s *Server) refuse(c net.Conn, caller netip.AddrPort, t proxy.Target, r *proxy.Refusal) {
	s.note(caller, t, r)
	if s.answer(c, r) == nil {
		// The caller closes when it has read the answer. What it sends instead is
		// not left unread: that would become a reset, which can overtake the answer.
		if h, ok := c.(proxy.CloseWriter); ok {
			_ = h.CloseWrite()
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = io.CopyN(io.Discard, c, 64<<10)
	}
	_ = c.Close()
}

// note counts a refusal, and logs the first of a caller for a reason.
func (s *Server) note(caller netip.AddrPort, t proxy.Target, r *proxy.Refusal) {
	s.cfg.Counters.Refused(r.Code)
	key := note{caller.Addr(), r.Code}
	s.mu.Lock()
	known := s.noted[key]
	if full := len(s.noted) >= noted; !known && !full {
		s.noted[key] = true
	} else if full {
		known = true
	}
	s.mu.Unlock()
	if !known {
		s.log.Warn("stream refused", "caller", caller.Addr(), "reason", r.Code, "node", t.Node, "port", t.Port, "why", r.Text)
	}
}
