package proxy

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// Side is at which end of the channel a stream is seen.
type Side string

// The sides.
const (
	SideFront Side = "front"
	SideEdge  Side = "edge"
)

// Limits bound the streams that are open at once.
type Limits struct {
	// Streams in all; zero means 4096.
	Streams int
	// PerCaller is for one address that asks, or one /64 of IPv6, see [Source]; zero means half of Streams.
	PerCaller int
	// Memory is what the streams may hold together, in bytes: their buffers, and
	// what they copy with; one at rest counts as what it does hold. As it fills, new
	// streams get smaller buffers, of 104 KiB in all at the least, and are refused
	// when those do not fit. Zero means no bound.
	Memory int64
	// Idle is how long nothing may move on a stream, in either direction; zero means
	// four hours, as a kubelet has it.
	Idle time.Duration
}

// defaultIdle is a kubelet's --streaming-connection-idle-timeout.
const defaultIdle = 4 * time.Hour

func (l Limits) normal() Limits {
	l.Streams = cmp.Or(max(l.Streams, 0), 4096)
	l.PerCaller = cmp.Or(max(l.PerCaller, 0), (l.Streams+1)/2)
	l.Idle = cmp.Or(max(l.Idle, 0), defaultIdle)
	return l
}

// StreamInfo describes an open stream: for the audit line, and for status.
type StreamInfo struct {
	ID      uint64 // of this registry, given by Open
	Side    Side
	Front   string // kind of front, as tls, http, connect; empty at the edge
	Target  Target
	Caller  netip.AddrPort
	User    string // who was authenticated; empty: nobody
	Path    string // of the request, where a front reads it
	Via     string // the gateway node that is asked; empty: dialled plainly
	Started time.Time
	// Up are the bytes from the caller to the node, Down those back.
	Up, Down uint64
}

// Live is the registry of the streams that are open. Make it with [NewLive]. Its
// methods may be called from several goroutines at once.
type Live struct {
	limits Limits

	mu      sync.Mutex
	last    uint64
	open    map[uint64]*Stream
	callers map[netip.Addr]int
	held    int64       // bytes
	resting int64       // bytes that streams at rest are not charged for
	relief  *time.Timer // nil: no more is charged than there may be
	looks   uint64
}

// NewLive makes an empty registry.
func NewLive(l Limits) *Live {
	return &Live{limits: l.normal(), open: map[uint64]*Stream{}, callers: map[netip.Addr]int{}}
}

// Stream is an open stream of a registry. Up and Down are counted by whoever
// copies it.
type Stream struct {
	Up, Down atomic.Uint64

	live    *Live
	id      uint64
	caller  netip.Addr
	size    size  // of its buffers when it was opened
	done    bool  // guarded by the registry, as the next
	charged int64 // bytes
	buffers int64 // bytes that its buffers could hold
	spared  int64 // bytes of those that it is not charged for; zero: it does not rest
	body    int64 // bytes that it holds at rest

	// mu is locked before the registry.
	mu    sync.Mutex
	info  StreamInfo
	ends  [2]end  // caller and node
	flows [2]flow // from the caller, from the node
	moved time.Time
	idle  *time.Timer // nil: nobody waits for that
	rest  *time.Timer // likewise
	rests bool
	end   context.CancelCauseFunc // nil: nobody can break it off
	ended bool                    // for want of memory

	passed, seen int64  // bytes, until now and at the last look
	looked       uint64 // number of that
}

// Open enters a stream; its ID, and Started when zero, are filled in. Beyond a
// limit it returns a [*Refusal] with [CodeLimit] or [CodeMemory]. The stream is to be
// closed.
func (l *Live) Open(info StreamInfo) (*Stream, error) {
	from := Source(info.Caller.Addr())
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.open); n >= l.limits.Streams {
		return nil, Refuse(CodeLimit, fmt.Sprintf("%d streams are open, which is the limit", n))
	}
	if n := l.callers[from]; n >= l.limits.PerCaller {
		return nil, Refuse(CodeLimit, fmt.Sprintf("%d streams of %s are open, which is the limit of one caller", n, from))
	}
	s := &Stream{live: l, id: l.last + 1, caller: from, body: atRest}
	if info.Path != "" {
		s.body = atRestHTTP
	}
	if err := l.enter(s); err != nil {
		return nil, err
	}
	l.last++
	info.ID = s.id
	if info.Started.IsZero() {
		info.Started = time.Now()
	}
	s.info = info
	l.open[info.ID] = s
	l.callers[from]++
	return s, nil
}

// Update changes what is said of the stream; the caller's address and the ID stay.
func (s *Stream) Update(change func(*StreamInfo)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, caller := s.info.ID, s.info.Caller
	change(&s.info)
	s.info.ID, s.info.Caller = id, caller
}

// Info returns the present values.
func (s *Stream) Info() StreamInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	info := s.info
	info.Up, info.Down = s.Up.Load(), s.Down.Load()
	return info
}

// Close takes the stream out. Closing it twice does nothing.
func (s *Stream) Close() {
	s.stopTimers()
	l := s.live
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.done {
		return
	}
	s.done = true
	l.held -= s.charged
	l.resting -= s.spared
	delete(l.open, s.id)
	if l.callers[s.caller]--; l.callers[s.caller] == 0 {
		delete(l.callers, s.caller)
	}
}

// Len returns how many streams are open.
func (l *Live) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

// List returns the open streams, the oldest first.
func (l *Live) List() []StreamInfo {
	l.mu.Lock()
	streams := make([]*Stream, 0, len(l.open))
	for _, s := range l.open {
		streams = append(streams, s)
	}
	l.mu.Unlock()
	infos := make([]StreamInfo, 0, len(streams))
	for _, s := range streams {
		infos = append(infos, s.Info())
	}
	sort.Slice(infos, func(i, j int) bool { return infos[i].ID < infos[j].ID })
	return infos
}
