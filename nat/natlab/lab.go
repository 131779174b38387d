package natlab

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Lab is one simulated Internet: its clock, its chance and its queue of
// events. Make it with [New].
type Lab struct {
	now   time.Time
	rand  *rand.Rand
	queue queue
	trace func(line string)
	drops map[string]int
}

// New returns an empty Internet. The seed decides every chance in it. Virtual
// time starts at the same instant in every lab.
func New(seed uint64) *Lab {
	return &Lab{
		now:   time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC),
		rand:  rand.New(rand.NewPCG(seed, 0x6e61746c6162)),
		drops: make(map[string]int),
	}
}

// Now returns the virtual time.
func (l *Lab) Now() time.Time { return l.now }

// Rand returns the lab's own source of chance. Scenarios that draw from it
// stay reproducible.
func (l *Lab) Rand() *rand.Rand { return l.rand }

// After calls fn once, d from now in virtual time. A negative d counts as zero.
func (l *Lab) After(d time.Duration, fn func()) *Timer {
	t := &Timer{fn: fn}
	l.queue.push(event{at: l.now.Add(max(d, 0)), timer: t})
	return t
}

// Timer is a call that is still to come. Make it with [Lab.After].
type Timer struct{ fn func() }

// Stop cancels the call, if it has not happened yet. A nil Timer is fine.
func (t *Timer) Stop() {
	if t != nil {
		t.fn = nil
	}
}

// Run lets d of virtual time pass.
func (l *Lab) Run(d time.Duration) {
	l.RunUntil(d, func() bool { return false })
}

// RunUntil lets virtual time pass until done returns true, at most d, and
// returns what done said last. It asks after every event.
func (l *Lab) RunUntil(d time.Duration, done func() bool) bool {
	end := l.now.Add(d)
	for !done() {
		e, ok := l.queue.popUntil(end)
		if !ok {
			l.now = end
			return done()
		}
		l.now = e.at
		if e.timer == nil {
			e.to.node.receive(e.to, e.packet)
		} else if fn := e.timer.fn; fn != nil {
			e.timer.fn = nil
			fn()
		}
	}
	return true
}

// Trace makes the lab call fn with a readable line for whatever happens to a
// packet. Nil ends it.
func (l *Lab) Trace(fn func(line string)) { l.trace = fn }

// Tracef adds a line of the scenario's own to the trace.
func (l *Lab) Tracef(format string, args ...any) {
	if l.trace != nil {
		l.trace(fmt.Sprintf("%10.4f ", l.now.Sub(New(0).now).Seconds()) + fmt.Sprintf(format, args...))
	}
}

// Drops returns how many packets were dropped, by reason. The map is a copy.
func (l *Lab) Drops() map[string]int {
	out := make(map[string]int, len(l.drops))
	for reason, n := range l.drops {
		out[reason] = n
	}
	return out
}

// drop counts a packet that ends here.
func (l *Lab) drop(where, reason string, p *packet) {
	l.drops[reason]++
	if l.trace != nil {
		l.Tracef("%s: drop %s: %s", where, p, reason)
	}
}
