package proxy

import (
	"sync"
	"sync/atomic"
	"time"
)

// Stage is a part of the time that a request takes.
type Stage string

// The stages.
const (
	StageRequest Stage = "request" // from the connection to knowing what is wanted
	StageAuth    Stage = "auth"    // authentication and authorization
	StagePath    Stage = "path"    // to a gateway node of the domain
	StageNode    Stage = "node"    // from the gateway node to the node; plainly: the dial
	StageFirst   Stage = "first"   // from then to the first byte of the node
)

// Stages returns every stage, in the order of a request.
func Stages() []Stage { return []Stage{StageRequest, StageAuth, StagePath, StageNode, StageFirst} }

// Counters count what all streams of an agent did. The zero value is ready. Its
// methods may be called from several goroutines at once.
type Counters struct {
	// Up are the bytes from callers to nodes, Down those back. Streams that a
	// front of this agent dials and streams that its edge serves both count.
	Up, Down atomic.Uint64
	// Stalls counts the streams that had bytes for an end which took none for
	// ten seconds.
	Stalls atomic.Uint64

	refused [codeBound]atomic.Uint64
	ended   endCounts
	mu      sync.Mutex
	fronts  map[string]uint64
	stages  map[Stage]Latency
}

// Latency is how often a stage was passed, and how long that took in all.
type Latency struct {
	Count uint64
	Sum   time.Duration
}

// Request counts a request that a front, or the edge, took.
func (c *Counters) Request(front string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fronts == nil {
		c.fronts = map[string]uint64{}
	}
	c.fronts[front]++
}

// Refused counts a request that was not served. [CodeNone] counts nothing; a code
// that is not known counts as [CodeMalformed].
func (c *Counters) Refused(code Code) {
	if code == CodeNone {
		return
	}
	if !code.Known() {
		code = CodeMalformed
	}
	c.refused[code].Add(1)
}

// Took notes how long a stage took.
func (c *Counters) Took(s Stage, d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stages == nil {
		c.stages = map[Stage]Latency{}
	}
	l := c.stages[s]
	c.stages[s] = Latency{l.Count + 1, l.Sum + d}
}

// Counts are the counters at one moment.
type Counts struct {
	Requests map[string]uint64 // by front, every one; "edge" are streams that were served
	Refused  map[Code]uint64   // every code
	Ended    map[End]uint64    // every end: streams that were broken off here
	Stages   map[Stage]Latency // every stage
	Up, Down uint64
	Stalls   uint64
}

// Snapshot returns the present values.
func (c *Counters) Snapshot() Counts {
	s := Counts{
		Requests: map[string]uint64{"tls": 0, "http": 0, "connect": 0, "edge": 0}, Refused: map[Code]uint64{}, Stages: map[Stage]Latency{},
		Ended: c.ended.snapshot(), Up: c.Up.Load(), Down: c.Down.Load(), Stalls: c.Stalls.Load(),
	}
	for _, code := range Codes() {
		s.Refused[code] = c.refused[code].Load()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for f, n := range c.fronts {
		s.Requests[f] = n
	}
	for _, st := range Stages() {
		s.Stages[st] = c.stages[st]
	}
	return s
}
