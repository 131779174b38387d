package edge

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"corax/proxy"
	"corax/proxy/splice"
)

// lapsedAfter is how long a stream goes on that has lost what it is for: objects are
// changed one by one, and what is missing may be on its way.
const lapsedAfter = time.Minute

// served is a stream that is open. The server's mutex guards it.
type served struct {
	caller netip.Addr
	target proxy.Target
	addr   netip.Addr // of the node, as the plan had it
	end    context.CancelCauseFunc

	lapse *time.Timer // nil: it may go on
}

// lapsed says what a stream has lost; nil: nothing. A caller that is still an endpoint
// of some Gateway may have been a front until a moment ago: its streams go on, so that
// a hand-over breaks none.
func (p *plan) lapsed(o *served) *proxy.Ended {
	addr, ours := p.nodes[o.target.Node]
	_, listed := p.listed[o.caller]
	switch {
	case !listed && !p.callers[o.caller]:
		return &proxy.Ended{End: proxy.EndCaller, Text: fmt.Sprintf("%s is no endpoint of a gateway any more", o.caller)}
	case !ours:
		return &proxy.Ended{End: proxy.EndNode, Text: fmt.Sprintf("node %s is not of this domain any more", o.target.Node)}
	case addr != o.addr:
		return &proxy.Ended{End: proxy.EndNode, Text: fmt.Sprintf("node %s has another address", o.target.Node)}
	case !p.ports[o.target.Port]:
		return &proxy.Ended{End: proxy.EndPort, Text: fmt.Sprintf("port %d may not be asked for any more", o.target.Port)}
	}
	return nil
}

// judge has a stream end in a while when it has lost what it is for, and lets it go on
// when it has that again. The server is locked.
func (o *served) judge(p *plan) {
	ended := p.lapsed(o)
	switch {
	case ended == nil && o.lapse != nil:
		o.lapse.Stop()
		o.lapse = nil
	case ended != nil && o.lapse == nil:
		o.lapse = time.AfterFunc(lapsedAfter, func() { o.end(ended) })
	}
}

// keep notes a stream until done is called. What changed since it was looked up is
// found here.
func (s *Server) keep(o *served) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[o] = true
	o.judge(s.plan.Load())
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, o)
		if o.lapse != nil {
			o.lapse.Stop()
		}
	}
}

// record writes the audit line of a stream that has ended, and counts it when it was
// broken off here.
func (s *Server) record(i proxy.StreamInfo, err error) {
	s.cfg.Counters.Ended(err)
	attrs := []any{"front", "edge", "node", i.Target.Node, "port", i.Target.Port, "source", i.Caller.String()}
	if name := s.plan.Load().listed[i.Caller.Addr()]; name != "" {
		attrs = append(attrs, "sourceNode", name)
	}
	s.audit.Info("stream", append(attrs,
		"duration", time.Since(i.Started).Round(time.Millisecond), "upBytes", i.Up, "downBytes", i.Down, "end", ending(err))...)
}

// ending says how a stream ended, in words without content.
func ending(err error) string {
	if err == nil {
		return "done"
	}
	if end, ok := errors.AsType[*splice.EndError](err); ok {
		who := "caller"
		if end.B {
			who = "node"
		}
		return who + ": " + end.Op + ": " + end.Err.Error()
	}
	return err.Error()
}
