package wg

import (
	"sync/atomic"
	"time"
)

// Bounds on the packets inside wireguard-go. Each holds a buffer of 64 KiB, of
// which only the pages in use cost memory.
const (
	// batchSize is the most packets per Read, Write, and system call.
	batchSize = 128
	// maxStaged is the most packets that wait inside wireguard-go for the
	// session of one peer.
	maxStaged = 64

	// stallAfter is how long a peer's packets may show no progress, while a
	// handshake with it is under way, before its session counts as gone.
	stallAfter = 20 * time.Millisecond
	// giveUpAfter is how long packets may show no progress for no known reason,
	// as on a machine without a free processor, before they count as lost.
	giveUpAfter = 250 * time.Millisecond
	// probeEvery is how often one packet more passes to a peer without session,
	// because each makes wireguard-go try a handshake.
	probeEvery = 5 * time.Second
	// waitStep is how long a full gate or window waits before it looks for
	// packets that will never come out again.
	waitStep = 5 * time.Millisecond
)

// flow is what the gate knows of one peer. Only the gate's user touches it.
type flow struct {
	flowing bool          // has a session, as far as one can see
	handed  uint64        // as peer.sent, at the way in
	seen    uint64        // peer.sent at the last look
	since   time.Duration // last progress, or nothing in flight
	staged  int           // let through without a session
	probe   time.Duration // when the last of those was
}

// gate bounds the packets on their way from the link to the bind.
//
// Packets go in by admit and come out by passed. Some never come out: those
// that wait for a session, and those that wireguard-go dropped. wireguard-go
// makes an initiation when packets wait for a session: so a peer whose packets
// show no progress after one no longer counts, and may add few packets only,
// until one of its packets comes out. admit, full and sweep need the same lock
// from outside; the other methods need none.
type gate struct {
	start  time.Time
	bound  int64  // Bounds.InFlight
	each   int    // Bounds.Staged
	all    int    // Bounds.StagedAll
	staged int    // of all peers
	handed uint64 // of flowing peers
	passes atomic.Uint64

	waiting atomic.Bool
	wake    chan struct{} // capacity 1
}

// newGate makes the gate. The bound in flight is one batch per thread unless
// memory is short: that keeps every thread busy; more would only fall out of the
// processor's cache before the next stage gets to it.
func newGate(b Bounds) *gate {
	return &gate{bound: int64(b.InFlight), each: b.Staged, all: b.StagedAll, start: time.Now(), wake: make(chan struct{}, 1)}
}

// now is the time that the methods mean.
func (g *gate) now() time.Duration { return time.Since(g.start) }

// passed says that n data packets of p left wireguard-go.
func (g *gate) passed(p *peer, n int) {
	p.sent.Add(uint64(n))
	g.passes.Add(uint64(n))
	if g.waiting.Load() {
		select {
		case g.wake <- struct{}{}:
		default:
		}
	}
}

// full reports whether the packets in flight have reached the bound.
func (g *gate) full() bool {
	return int64(g.handed-g.passes.Load()) >= g.bound // may be below zero for a moment
}

// admit says whether one packet more may go to p at the time now.
func (g *gate) admit(p *peer, now time.Duration) bool {
	f := &p.flow
	g.look(p, now)
	g.judge(p, now)
	if f.flowing {
		if f.handed == f.seen {
			f.since = now
		}
		f.handed++
		g.handed++
		return true
	}
	if f.staged < g.each && (g.all == 0 || g.staged < g.all) {
		f.staged++
		g.staged++
		f.probe = now
		return true
	}
	if now-f.probe >= probeEvery {
		f.probe = now
		return true
	}
	return false
}

// look notes whether packets of p came out since the last look.
func (g *gate) look(p *peer, now time.Duration) {
	f := &p.flow
	sent := p.sent.Load()
	if sent == f.seen {
		return
	}
	f.seen, f.since = sent, now
	if !f.flowing {
		g.unstage(f)
		f.flowing = true
	}
	if late := int64(sent - f.handed); late > 0 { // waited for a session, or was given up
		f.handed += uint64(late)
		g.handed += uint64(late)
	}
}

// judge gives up p's packets in flight when they show no progress.
func (g *gate) judge(p *peer, now time.Duration) {
	f := &p.flow
	idle := now - f.since
	if !f.flowing || f.handed == f.seen || idle <= stallAfter {
		return
	}
	waiting := p.initiated.Load()
	if !waiting && idle <= giveUpAfter {
		return
	}
	g.handed -= f.handed - f.seen
	f.handed, f.since = f.seen, now
	if waiting {
		g.unstage(f)
		f.flowing = false
	}
}

// unstage forgets the packets of a peer that waited for its session.
func (g *gate) unstage(f *flow) {
	g.staged -= f.staged
	f.staged = 0
}

// sweep gives up the packets of every peer that shows no progress, and counts
// those in flight anew.
func (g *gate) sweep(peers []*peer, now time.Duration) {
	passes := g.passes.Load()
	var inFlight uint64
	staged := 0
	for _, p := range peers {
		f := &p.flow
		g.look(p, now)
		g.judge(p, now)
		if f.flowing {
			inFlight += f.handed - f.seen
		}
		staged += f.staged
	}
	g.handed, g.staged = passes+inFlight, staged
}
