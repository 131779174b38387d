package election

import (
	"cmp"
	"slices"
)

// Seats is the outcome of an election.
type Seats struct {
	// Active names the active nodes, sorted.
	Active []string
	// Leaving are those of Active that hand over, until the new ones have
	// settled; sorted.
	Leaving []string
	// Lost says for each node that was active and is not any more, why.
	Lost map[string]string
	// Stale says that no candidate is eligible, so that the active ones stay.
	Stale bool
}

// Keeps returns the active nodes that are not leaving.
func (s Seats) Keeps() []string {
	return slices.DeleteFunc(slices.Clone(s.Active), func(n string) bool { return slices.Contains(s.Leaving, n) })
}

// Elect fills seats, which are at most replicas. present names the nodes that are
// active now, and list the candidates in order of preference.
func Elect(present []string, list []Candidate, replicas int) Seats {
	if replicas <= 0 {
		return seats(present, list, nil, nil, CauseOff)
	}
	b := newBallot(present, list)
	if len(b.sitting)+len(b.waiting) == 0 {
		return b.stay(present, list)
	}
	// More sit than there are seats: Replicas was lowered, or somebody leaves.
	b.sort(b.sitting)
	n := min(replicas, len(b.sitting))
	taken, spare := slices.Clone(b.sitting[:n]), slices.Clone(b.sitting[n:])
	for len(taken) < replicas && len(b.waiting) > 0 {
		taken = append(taken, b.next(taken))
	}
	for len(taken) > 0 && len(b.waiting) > 0 {
		worst := worstOf(taken)
		rest := slices.Concat(taken[:worst], taken[worst+1:])
		i := b.best(rest)
		if !betters(b.waiting[i], taken[worst]) {
			break
		}
		if out := taken[worst]; b.sits[out.Node] {
			spare = append(spare, out)
		}
		taken = append(rest, b.take(i))
	}
	return seats(present, list, taken, b.leaving(taken, spare), "")
}

// ballot holds the eligible candidates.
type ballot struct {
	sits             map[string]bool // was active before
	order            map[string]int  // of preference
	sitting, waiting []Candidate
}

func newBallot(present []string, list []Candidate) *ballot {
	b := &ballot{sits: map[string]bool{}, order: map[string]int{}}
	for i, c := range list {
		b.order[c.Node] = i
		switch {
		case !c.Eligible || c.Doubtful && !slices.Contains(present, c.Node):
		case slices.Contains(present, c.Node):
			b.sits[c.Node] = true
			b.sitting = append(b.sitting, c)
		default:
			b.waiting = append(b.waiting, c)
		}
	}
	return b
}

// sort puts the better ones first.
func (b *ballot) sort(list []Candidate) {
	slices.SortFunc(list, func(x, y Candidate) int {
		return cmp.Or(cmp.Compare(x.Demerits, y.Demerits), cmp.Compare(b.order[x.Node], b.order[y.Node]))
	})
}

// best returns the index of the waiting candidate to seat beside those that have a
// seat already.
func (b *ballot) best(taken []Candidate) int {
	zone := map[string]int{}
	for _, c := range taken {
		zone[c.Zone]++
	}
	best := 0
	for i, c := range b.waiting {
		d := b.waiting[best]
		if cmp.Or(cmp.Compare(c.Demerits&noKey, d.Demerits&noKey), silence(c, d), cmp.Compare(c.Demerits, d.Demerits), cmp.Compare(zone[c.Zone], zone[d.Zone]),
			cmp.Compare(b.order[c.Node], b.order[d.Node])) < 0 {
			best = i
		}
	}
	return best
}

// betters reports whether c should have the seat of d: not before c shows itself,
// unless d carries nothing.
func betters(c, d Candidate) bool {
	return c.Demerits < d.Demerits && (!c.Silent || d.Silent || d.Demerits&noKey != 0)
}

// silence puts first who is known to be alive.
func silence(a, b Candidate) int {
	switch {
	case a.Silent == b.Silent:
		return 0
	case b.Silent:
		return -1
	default:
		return 1
	}
}

func (b *ballot) next(taken []Candidate) Candidate { return b.take(b.best(taken)) }

func (b *ballot) take(i int) Candidate {
	c := b.waiting[i]
	b.waiting = slices.Delete(b.waiting, i, i+1)
	return c
}

// leaving returns who stays beside those that took seats: one for each that has
// not settled. Who has no key carries nothing, so nobody misses it.
func (b *ballot) leaving(taken, spare []Candidate) []Candidate {
	fresh := 0
	for _, c := range taken {
		if !b.sits[c.Node] || !c.Settled {
			fresh++
		}
	}
	spare = slices.DeleteFunc(spare, func(c Candidate) bool { return c.Demerits&noKey != 0 })
	b.sort(spare)
	return spare[:min(fresh, len(spare))]
}

// stay keeps everybody who is active and still there, since nobody is eligible.
func (b *ballot) stay(present []string, list []Candidate) Seats {
	var kept []Candidate
	for _, c := range list {
		if !c.Gone && slices.Contains(present, c.Node) {
			kept = append(kept, c)
		}
	}
	s := seats(present, list, kept, nil, "")
	s.Stale = true
	return s
}

func worstOf(list []Candidate) int {
	worst := 0
	for i, c := range list {
		if c.Demerits >= list[worst].Demerits {
			worst = i
		}
	}
	return worst
}

// seats puts the outcome in form. off is the cause when nobody may be active.
func seats(present []string, list, taken, leaving []Candidate, off string) Seats {
	var s Seats
	for _, c := range taken {
		s.Active = append(s.Active, c.Node)
	}
	for _, c := range leaving {
		s.Active = append(s.Active, c.Node)
		s.Leaving = append(s.Leaving, c.Node)
	}
	slices.Sort(s.Active)
	slices.Sort(s.Leaving)
	worst := -1
	for _, c := range taken {
		worst = max(worst, c.Demerits)
	}
	for _, name := range present {
		if slices.Contains(s.Active, name) {
			continue
		}
		if s.Lost == nil {
			s.Lost = map[string]string{}
		}
		s.Lost[name] = cmp.Or(off, cause(name, list, worst))
	}
	return s
}

// handedOver begins the cause of who left for a better one.
const handedOver = "handed over: "

// cause says why a node lost its seat; worst is the most demerits that a seat has.
func cause(name string, list []Candidate, worst int) string {
	i := slices.IndexFunc(list, func(c Candidate) bool { return c.Node == name })
	switch {
	case i < 0:
		return CauseUnlisted
	case !list[i].Eligible:
		return list[i].Why
	case list[i].Demerits > worst:
		return handedOver + list[i].wish(worst)
	default:
		return CauseSurplus
	}
}
