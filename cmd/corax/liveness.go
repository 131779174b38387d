package main

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	pingTimeout = 900 * time.Millisecond
	// pingIdle is how often a path is proven that works or has nothing to do.
	pingIdle = 10 * time.Second
	// pingBusy is how often when packets go out, and how soon silence shows.
	pingBusy = time.Second
	// silentPings is how many unanswered pings in a row make a session silent.
	silentPings = 2
	// rehandshake is the least time between two handshakes for silence.
	rehandshake = 5 * time.Second
	maxPings    = 64 // at once
)

// A target is an overlay address that should answer pings through the tunnel.
type target struct {
	addr netip.Addr
	// busy: packets go to it. A plain node's gateway is proven once a second
	// then, so that status tells the truth within two.
	busy bool
	// silent is called when silentPings in a row stayed unanswered; nil: never.
	// It reports whether it could do something; else it is called again after
	// the next ping.
	silent func() bool
}

// A liveness pings targets and keeps what came of it. One goroutine runs it;
// Of may be called from others.
type liveness struct {
	ping    func(ctx context.Context, addr netip.Addr) (time.Duration, error)
	targets func() []target
	// rounded, when not nil, is called when all pings of a round were answered or
	// given up.
	rounded func()

	mu    sync.Mutex
	alive map[netip.Addr]*alive
}

// alive is what is known of one target.
type alive struct {
	rtt      time.Duration // smoothed as in RFC 6298
	answered time.Time     // last answer; zero: none yet
	sent     time.Time     // last ping
	silent   int           // unanswered in a row
	acted    time.Time     // when target.silent last did something
	history  uint32        // one bit a ping, newest lowest, 1 = lost
	pings    int           // bits of history that count
}

func newLiveness(ping func(context.Context, netip.Addr) (time.Duration, error), targets func() []target) *liveness {
	return &liveness{ping: ping, targets: targets, alive: map[netip.Addr]*alive{}}
}

// Run pings until ctx is done.
func (l *liveness) Run(ctx context.Context) error {
	tick := time.NewTicker(pingBusy)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			l.round(ctx, now)
		}
	}
}

// round pings what is due and waits for the answers.
func (l *liveness) round(ctx context.Context, now time.Time) {
	targets := l.targets()
	l.forgetOthers(targets)
	var g errgroup.Group
	g.SetLimit(maxPings)
	for _, t := range targets {
		if !l.due(t, now) {
			continue
		}
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, pingTimeout)
			defer cancel()
			rtt, err := l.ping(ctx, t.addr)
			if l.record(t.addr, rtt, err == nil, now) && t.silent != nil && t.silent() {
				l.actedOn(t.addr, now)
			}
			return nil
		})
	}
	_ = g.Wait() // the goroutines return no error
	if l.rounded != nil {
		l.rounded()
	}
}

func (l *liveness) forgetOthers(targets []target) {
	keep := make(map[netip.Addr]bool, len(targets))
	for _, t := range targets {
		keep[t.addr] = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for a := range l.alive {
		if !keep[a] {
			delete(l.alive, a)
		}
	}
}

func (l *liveness) due(t target, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.alive[t.addr]
	if a == nil {
		a = &alive{}
		l.alive[t.addr] = a
	}
	every := pingIdle
	if t.busy || a.silent > 0 && a.silent <= 2*silentPings {
		every = pingBusy
	}
	// Ticks come late now and then: half of one is no reason to skip a ping.
	if now.Sub(a.sent) < every-pingBusy/2 {
		return false
	}
	a.sent = now
	return true
}

// record keeps the outcome of one ping, and reports whether the target has been
// silent for so long that somebody should act.
func (l *liveness) record(addr netip.Addr, rtt time.Duration, ok bool, now time.Time) (act bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.alive[addr]
	if a == nil {
		return false // no longer a target
	}
	a.history <<= 1
	a.pings = min(a.pings+1, 32)
	if ok {
		if a.answered.IsZero() {
			a.rtt = rtt
		} else {
			a.rtt += (rtt - a.rtt) / 8
		}
		a.answered, a.silent = now, 0
		return false
	}
	a.history |= 1
	a.silent++
	return a.silent >= silentPings && now.Sub(a.acted) >= rehandshake
}

// actedOn notes that something was done about a silent target.
func (l *liveness) actedOn(addr netip.Addr, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.alive[addr]; a != nil {
		a.acted = now
	}
}

// reading is what status shows of one target.
type reading struct {
	rtt      time.Duration
	loss     float64 // share of the last pings, at most 32, that stayed unanswered
	answered time.Time
	silent   int
}

// Of returns what is known of addr; ok is false before the first ping came back
// or timed out.
func (l *liveness) Of(addr netip.Addr) (r reading, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.alive[addr]
	if a == nil || a.pings == 0 {
		return reading{}, false
	}
	lost := 0
	for i := range a.pings {
		lost += int(a.history >> i & 1)
	}
	return reading{rtt: a.rtt, loss: float64(lost) / float64(a.pings), answered: a.answered, silent: a.silent}, true
}
