package cost

import (
	"math"
	"time"
)

const (
	// clearly: a route of at most two thirds of the present cost wins soon.
	// Two equal routes under 20 % jitter never come this far apart (0.8/1.2).
	clearlyNum, clearlyDen = 2, 3
	// hold is how long it must stay clearly cheaper.
	hold = 2 * time.Second

	// smoothing is the time constant of the averages that decide between
	// routes that are closer to each other, and patience how long both must
	// have been watched before they do.
	smoothing = 20 * time.Second
	patience  = 20 * time.Second
	// better: an average of at most 85 % of the present route's wins.
	betterNum, betterDen = 85, 100

	// least is a gain that nobody notices: never a reason to move.
	least = time.Millisecond
)

// Chooser picks a route and stays with it: it moves at once when its route is
// gone, within two seconds when another is clearly cheaper (by a third), and
// after twenty when another is cheaper by 15 % on average. The zero value has
// chosen nothing. It is not safe for concurrent use; it keeps nothing but the
// routes of the last call.
type Chooser struct {
	current Route
	chosen  bool
	last    time.Time
	watched []watched
}

type watched struct {
	route   Route
	since   time.Time
	average float64   // of the cost, in ns
	clear   time.Time // since when clearly cheaper than the present one; zero: is not
}

// Current returns the present choice.
func (c *Chooser) Current() (Route, bool) { return c.current, c.chosen }

// Choose returns the route to use among routes, which must be ordered as
// [Routes] orders them, and whether that is another than before (its cost may
// have changed even if not). Without routes it returns the zero Route and
// forgets its choice. Call it on changes, and about once a second.
func (c *Chooser) Choose(now time.Time, routes []Route) (Route, bool) {
	c.watch(now, routes)
	if len(routes) == 0 {
		moved := c.chosen
		*c = Chooser{}
		return Route{}, moved
	}
	i := c.find(c.current)
	if !c.chosen || i < 0 || c.watched[i].route.Cost >= Unknown {
		return c.take(routes[0])
	}
	present := &c.watched[i]
	c.current = present.route
	for _, r := range routes { // cheapest first
		if w := &c.watched[c.find(r)]; w != present && w.beats(now, present) {
			return c.take(r)
		}
	}
	return c.current, false
}

func (c *Chooser) take(r Route) (Route, bool) {
	moved := !c.chosen || !c.current.Same(r)
	c.current, c.chosen = r, true
	if moved { // what was clearly cheaper than the old one is compared anew
		for i := range c.watched {
			c.watched[i].clear = time.Time{}
		}
	}
	return r, moved
}

func (c *Chooser) find(r Route) int {
	for i := range c.watched {
		if c.watched[i].route.Same(r) {
			return i
		}
	}
	return -1
}

// watch takes the costs of this moment into the averages.
func (c *Chooser) watch(now time.Time, routes []Route) {
	keep := 1.0
	if !c.last.IsZero() {
		keep = math.Exp(-max(now.Sub(c.last), 0).Seconds() / smoothing.Seconds())
	}
	next := make([]watched, 0, len(routes))
	for _, r := range routes {
		w := watched{route: r, since: now, average: float64(r.Cost)}
		if i := c.find(r); i >= 0 {
			w = c.watched[i]
			w.route = r
			w.average = keep*w.average + (1-keep)*float64(r.Cost)
		}
		next = append(next, w)
	}
	c.watched, c.last = next, now
}

func (w *watched) beats(now time.Time, present *watched) bool {
	gain := present.route.Cost - w.route.Cost
	if gain <= least || w.route.Cost > present.route.Cost*clearlyNum/clearlyDen {
		w.clear = time.Time{}
	} else if w.clear.IsZero() {
		w.clear = now
	}
	if !w.clear.IsZero() && now.Sub(w.clear) >= hold {
		return true
	}
	return now.Sub(w.since) >= patience && now.Sub(present.since) >= patience &&
		w.average <= present.average*betterNum/betterDen &&
		time.Duration(present.average-w.average) > least
}
