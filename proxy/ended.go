package proxy

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// End is why a stream that was served is broken off by this agent.
type End string

// The ends.
const (
	EndIdle   End = "idle"   // nothing moved for too long
	EndCaller End = "caller" // the caller is no endpoint any more
	EndNode   End = "node"   // the node has left the domain, or has another address
	EndPort   End = "port"   // the port may not be asked for any more
	EndMemory End = "memory" // its reader is slow, and there is no memory to wait for it
)

// Ends returns every end.
func Ends() []End { return []End{EndIdle, EndCaller, EndNode, EndPort, EndMemory} }

// An Ended is the error of a stream that this agent broke off.
type Ended struct {
	End  End
	Text string
}

// Error returns Text.
func (e *Ended) Error() string { return e.Text }

// Ended counts a stream that this agent broke off; any other error counts nothing.
func (c *Counters) Ended(err error) {
	e, ok := errors.AsType[*Ended](err)
	if !ok {
		return
	}
	for i, end := range Ends() {
		if e.End == end {
			c.ended[i].Add(1)
		}
	}
}

// endCounts are as long as what Ends returns.
type endCounts [5]atomic.Uint64

func (c *endCounts) snapshot() map[End]uint64 {
	m := map[End]uint64{}
	for i, e := range Ends() {
		m[e] = c[i].Load()
	}
	return m
}

// EndIdle has end called with an [*Ended] when nothing passed, in either direction,
// for as long as the limits say, or when the stream waits for a reader and there is no
// memory for that. From now on the stream may rest. Its Close ends all
// that.
func (s *Stream) EndIdle(end context.CancelCauseFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved = time.Now()
	s.end = end
	s.idle = time.AfterFunc(s.live.limits.Idle, s.checkIdle)
	s.rest = time.AfterFunc(restAfter, s.checkRest)
}

func (s *Stream) checkIdle() {
	limit := s.live.limits.Idle
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle == nil {
		return
	}
	if left := limit - time.Since(s.moved); left > 0 {
		s.idle.Reset(left)
		return
	}
	s.end(&Ended{End: EndIdle, Text: "nothing moved for " + limit.String()})
}

func (s *Stream) stopTimers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle != nil {
		s.idle.Stop()
		s.rest.Stop()
		s.idle, s.rest = nil, nil
	}
}
