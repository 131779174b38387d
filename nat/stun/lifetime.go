package stun

import (
	"time"
)

const (
	// lifeFirst is the first idle time tried, lifeNear how near the bounds must
	// come, lifeTries how many idle times are tried at most.
	lifeFirst = 30 * time.Second
	lifeNear  = 5 * time.Second
	lifeTries = 12
	// lifePrime is the pause before the second request of a mapping. Linux gives a
	// flow its long timeout only when there is traffic both ways after 2 s, and that
	// is what a tunnel's mapping has.
	lifePrime = 3 * time.Second
)

// lifeStage is what the lifetime search is doing.
type lifeStage uint8

const (
	lifeOff    lifeStage = iota
	lifeOpen             // the extra socket asks: the mapping is there
	lifePause            // for lifePrime
	lifeAgain            // the extra socket asks a second time
	lifeTest             // does the server do RESPONSE-PORT?
	lifeIdle             // nothing is sent from the extra socket
	lifeCheck            // is the mapping still there?
	lifeVerify           // it does not seem so; is the server?
)

// lifetime measures how long a mapping lives without packets, on the extra socket.
// With a server that does RESPONSE-PORT the tunnel socket asks for an answer to the
// mapping (RFC 5780 section 4.6). Else the extra socket asks again, and another
// port means that the old mapping was gone; but the same port means nothing when
// the NAT would give it out again, so without one change nothing is known.
type lifetime struct {
	stage   lifeStage
	byPort  bool // RESPONSE-PORT works
	tested  bool // byPort is known
	pending *ask
	wake    time.Time
	port    uint16 // of the mapping
	tries   int
	idle    time.Duration
	lo, hi  time.Duration // lived, died; zero: not seen
}

func (l *lifetime) result() time.Duration {
	if !l.byPort && l.hi == 0 {
		return 0
	}
	return l.lo
}

func (l *lifetime) start(f *family, now time.Time) {
	if f.d.cfg.MaxLifetime <= 0 || f.extra() == nil || !f.behindNAT() {
		f.stage = stageDone
		return
	}
	l.next(f, now)
}

// next chooses the next idle time, or ends the search.
func (l *lifetime) next(f *family, now time.Time) {
	limit := f.d.cfg.MaxLifetime
	switch {
	case l.hi == 0 && l.lo == 0:
		l.idle = min(lifeFirst, limit)
	case l.hi == 0:
		l.idle = min(2*l.lo, limit)
	default:
		l.idle = (l.lo + l.hi) / 2
	}
	if l.tries++; l.tries > lifeTries || l.hi == 0 && l.lo >= limit || l.hi != 0 && l.hi-l.lo <= max(lifeNear, l.lo/8) {
		f.stage = stageDone
		return
	}
	l.stage, l.pending = lifeOpen, l.fromExtra(f, now)
}

func (l *lifetime) fromExtra(f *family, now time.Time) *ask {
	return f.ask(now, ask{why: askLife, to: f.home.to, other: true})
}

func (l *lifetime) fromTunnel(f *family, now time.Time) *ask {
	return f.ask(now, ask{why: askLifePort, to: f.home.to, opt: RequestOptions{ResponsePort: l.port}})
}

func (l *lifetime) step(f *family, now time.Time) {
	for f.stage == stageLifetime {
		switch {
		case l.pending != nil && l.pending.outcome == waiting:
			return
		case !l.wake.IsZero() && now.Before(l.wake):
			return
		}
		a := l.pending
		l.pending, l.wake = nil, time.Time{}
		l.turn(f, now, a)
	}
}

// turn goes on after a pause or an answer; a is what was asked.
func (l *lifetime) turn(f *family, now time.Time, a *ask) {
	ok := a != nil && a.outcome == replied
	switch l.stage {
	case lifeOpen:
		l.stage, l.wake = lifePause, now.Add(lifePrime)
	case lifePause:
		l.stage, l.pending = lifeAgain, l.fromExtra(f, now)
	case lifeAgain:
		switch {
		case !ok:
			f.stage = stageDone // the server is gone
		case l.tested:
			l.port = a.mapped.Port()
			l.sleep(now)
		case f.rfc5780() && a.mapped.Addr() == f.home.mapped.Addr():
			l.port = a.mapped.Port()
			l.stage, l.pending = lifeTest, l.fromTunnel(f, now)
		default:
			l.tested, l.port = true, a.mapped.Port()
			l.sleep(now)
		}
	case lifeTest:
		l.tested, l.byPort = true, ok
		l.stage, l.wake = lifePause, now.Add(lifePrime)
	case lifeIdle:
		l.stage, l.pending = lifeCheck, l.check(f, now)
	case lifeCheck:
		l.checked(f, now, a)
	case lifeVerify:
		if !ok {
			f.stage = stageDone
			return
		}
		l.hi = l.idle
		l.next(f, now)
	}
}

func (l *lifetime) sleep(now time.Time) { l.stage, l.wake = lifeIdle, now.Add(l.idle) }

func (l *lifetime) check(f *family, now time.Time) *ask {
	if l.byPort {
		return l.fromTunnel(f, now)
	}
	return l.fromExtra(f, now)
}

func (l *lifetime) checked(f *family, now time.Time, a *ask) {
	switch {
	case a.outcome == replied && (l.byPort || a.mapped.Port() == l.port):
		l.lo = l.idle
	case a.outcome == replied:
		l.hi = l.idle
	case l.byPort:
		l.stage, l.pending = lifeVerify, l.fromExtra(f, now)
		return
	default:
		f.stage = stageDone
		return
	}
	l.next(f, now)
}
