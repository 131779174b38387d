package proxy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sort"
	"syscall"
	"time"
)

const (
	// restAfter is after what time without a byte a stream is looked at whether its
	// buffers are empty, restAgain when they were not.
	restAfter = time.Second
	restAgain = 5 * time.Second
	// atRestHTTP is atRest of a stream whose HTTP is read here: with TLS and the
	// buffers of two HTTP connections.
	atRestHTTP = 64 << 10
	// reliefEvery is how often streams are looked at while more is charged than there
	// may be. Who holds bytes at two looks may be broken off.
	reliefEvery = 250 * time.Millisecond
)

// checkRest is what the timer of a stream that moved lately calls.
func (s *Stream) checkRest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rest == nil || s.rests {
		return
	}
	if left := restAfter - time.Since(s.moved); left > 0 {
		s.rest.Reset(left)
	} else if !s.settle() {
		s.rest.Reset(restAgain)
	}
}

// settle lets a stream rest that holds nothing. Its buffers to write into are as at
// first, then.
func (s *Stream) settle() bool {
	if !s.empty() {
		return false
	}
	less := 0
	for i := range s.ends {
		e := &s.ends[i]
		if more := e.write - s.size.other; more > 0 {
			less += more
			e.shrinkWrite(s.size.other)
		}
	}
	s.rests = true
	s.live.spare(s, int64(less))
	return true
}

func (s *Stream) empty() bool {
	for i := range s.ends {
		if !s.ends[i].drained() {
			return false
		}
	}
	return true
}

// drained reports whether a connection holds nothing. The stack's narrows its write
// buffer for that.
func (e *end) drained() bool {
	switch c := e.conn.(type) {
	case interface{ Rest() bool }:
		e.narrow = c.Rest() || e.narrow
		return e.narrow
	case syscall.Conn:
		return drained(c)
	default:
		return false
	}
}

// shrinkWrite has the connection keep less that it writes; a narrow one does already.
func (e *end) shrinkWrite(n int) {
	if e.narrow {
		e.write = n
	} else {
		e.setWrite(n)
	}
}

// wake ends a stream's rest. It is charged even when there is no room: then others are
// looked at soon, whether they only wait.
func (s *Stream) wake() {
	if !s.rests {
		return
	}
	s.rests = false
	if s.rest != nil {
		s.rest.Reset(restAfter)
	}
	s.live.unspare(s)
}

// spare takes what the buffers of a stream could hold off its charge; by less they have
// become smaller.
func (l *Live) spare(s *Stream, less int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.done {
		return
	}
	s.buffers -= less
	s.spared = max(s.buffers+atRest-s.body, 0)
	s.charged -= less + s.spared
	l.held -= less + s.spared
	l.resting += s.spared
}

func (l *Live) unspare(s *Stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.done {
		return
	}
	s.charged += s.spared
	l.held += s.spared
	l.resting -= s.spared
	s.spared = 0
	if l.held > l.limits.memory() && l.relief == nil {
		l.looks++ // what was seen earlier does not count
		l.relief = time.AfterFunc(reliefEvery, l.relieve)
	}
}

// look is what a look at a stream that holds bytes found.
type look struct {
	s       *Stream
	moved   int64 // bytes since the last look
	leaving bool
}

// relieve is called while more is charged than there may be. Streams that only pause
// rest at once. If that is not enough some that hold bytes are broken off: first those
// that moved least, of those the ones that may hold most.
func (l *Live) relieve() {
	l.mu.Lock()
	l.looks++
	number := l.looks
	streams := slices.Collect(maps.Values(l.open))
	l.mu.Unlock()
	var held []look
	for _, s := range streams {
		if found, ok := s.look(number); ok {
			held = append(held, found)
		}
	}
	l.mu.Lock()
	over := l.held - l.limits.memory()
	sort.Slice(held, func(i, j int) bool {
		a, b := &held[i], &held[j]
		return cmp.Or(cmp.Compare(a.moved, b.moved), cmp.Compare(b.s.charged, a.s.charged), cmp.Compare(a.s.id, b.s.id)) < 0
	})
	var off []*Stream
	for _, h := range held {
		if h.leaving {
			over -= h.s.charged
		}
	}
	for _, h := range held {
		if over > 0 && !h.leaving {
			over -= h.s.charged
			off = append(off, h.s)
		}
	}
	if l.held > l.limits.memory() {
		l.relief.Reset(reliefEvery)
	} else {
		l.relief = nil
	}
	l.mu.Unlock()
	for _, s := range off {
		s.breakOff()
	}
}

// look finds out whether a stream has held bytes at this look and the one before. One
// that only pauses rests from now on.
func (s *Stream) look(number uint64) (found look, held bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return look{s: s, leaving: true}, true
	case s.end == nil, s.rests:
		return look{}, false
	case time.Since(s.moved) >= reliefEvery:
		if s.settle() {
			return look{}, false
		}
	case s.empty():
		return look{}, false
	}
	found = look{s: s, moved: s.passed - s.seen}
	held = s.looked == number-1
	s.looked, s.seen = number, s.passed
	return found, held
}

func (s *Stream) breakOff() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = true
	s.end(&Ended{End: EndMemory, Text: fmt.Sprintf(
		"its reader is too slow, and the open streams hold all of the %d MiB that is the limit", s.live.limits.memory()>>20)})
}
