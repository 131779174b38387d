package failover

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"corax/control"
	"corax/dataplane/key"
)

const (
	// deadAfter is how many pings in a row, one a second, an active endpoint
	// leaves unanswered that is dead.
	deadAfter = 4
	// patience is how many more where somebody elects, who gets the first word.
	patience = 4
	// firstAfter is how many of one that never answered: a domain may be
	// starting.
	firstAfter = 15
	// maxRank bounds how long the candidates wait for each other, in pings.
	maxRank = 3
	// settled is for how many steps after it was cut off a node claims nothing:
	// those who are alive answer by then.
	settled = 3
	// handBack is how long those that the objects name must answer before a
	// claim gives the domain back to them.
	handBack = 10 * time.Second
)

// Reading is what is known of one endpoint by pinging it.
type Reading struct {
	// Missed are the pings in a row without an answer, and Answered says that one
	// ever came.
	Missed   int
	Answered bool
}

// Input is what a Machine goes by.
type Input struct {
	Node    string // this node
	Key     key.Public
	Gateway string
	// Domain is what the plan says, with all claims heard, and the machine's own,
	// taken into account. Nil: this node is in no domain that has tunnels.
	Domain *control.Domain
	// Readings are by node, of the members to Watch.
	Readings map[string]Reading
	// Contact says that somebody of whom an answer can be expected answers: the
	// node is not cut off.
	Contact bool
	// Elects says that somebody elects others at present.
	Elects bool
}

// Machine is the state on one node. The zero value is ready. One goroutine uses
// it.
type Machine struct {
	claim *control.Claim // ours
	base  base           // what the objects said when it was made
	back  time.Time      // since when all that the objects name answer; zero: not all
	// cut is negative while the node is cut off, and settled steps after: the pings
	// that went unanswered then say nothing of who is dead.
	cut int
	// before is what each carrier had missed when it became one: it was nobody's
	// business then, and this node may have been cut off. Nil: no step yet.
	before map[string]int
}

// base is what the objects say of a domain.
type base struct {
	epoch  uint64
	active []string
}

func baseOf(d *control.Domain) base { return base{d.Epoch, d.Active} }

func (b base) equal(o base) bool { return b.epoch == o.epoch && slices.Equal(b.active, o.active) }

// Claim returns this node's claim; nil: it has none. It is not changed after it
// was made.
func (m *Machine) Claim() *control.Claim { return m.claim }

// Restore takes up a claim that this node made before it started again, when the
// objects say what they said then.
func (m *Machine) Restore(c control.Claim, d *control.Domain, epoch uint64, active []string) {
	if b := (base{epoch, active}); d != nil && b.equal(baseOf(d)) {
		m.claim, m.base = &c, b
	}
}

// Base returns what the objects said when the claim was made.
func (m *Machine) Base() (epoch uint64, active []string) { return m.base.epoch, m.base.active }

// Step takes in what is known now. When the claim changed it returns why.
func (m *Machine) Step(now time.Time, in Input) (why string) {
	in.Readings = m.since(in)
	if m.claim != nil {
		if why := m.over(now, in); why != "" {
			m.claim, m.back = nil, time.Time{}
			return why
		}
	}
	m.cut = min(m.cut+1, 0)
	if !in.Contact {
		m.cut = -settled
	}
	if in.Domain == nil || !in.listed() || m.cut < 0 {
		return ""
	}
	dead, missed := in.dead()
	if len(dead) == 0 || missed < in.rank() {
		return ""
	}
	m.take(in, dead)
	return fmt.Sprintf("%s of gateway %s did not answer %d pings in a row", strings.Join(dead, " and "), in.Gateway, in.Readings[dead[0]].Missed)
}

// since returns the readings with what carriers missed since they are.
func (m *Machine) since(in Input) map[string]Reading {
	if in.Domain == nil {
		m.before = nil
		return in.Readings
	}
	out := maps.Clone(in.Readings)
	before := make(map[string]int, len(in.Domain.Carriers))
	for _, c := range in.Domain.Carriers {
		r, ok := in.Readings[c]
		n, known := m.before[c]
		switch {
		case !known && m.before != nil:
			n = r.Missed
		case r.Missed < n:
			n = 0
		}
		before[c] = n
		if ok {
			r.Missed -= n
			out[c] = r
		}
	}
	m.before = before
	return out
}

// over says why our claim ends; empty: it does not.
func (m *Machine) over(now time.Time, in Input) string {
	d := in.Domain
	switch {
	case d == nil || in.Gateway != m.claim.Gateway:
		return "the node left the domain"
	case !in.listed():
		return "the node is not listed any more"
	case d.Epoch >= m.claim.Epoch:
		return "the Gateway object has caught up"
	case !m.base.equal(baseOf(d)):
		return "the Gateway object names others"
	case d.Claim == nil:
		return "the Gateway object does not allow the claim any more"
	case d.Claim.From != in.Key && d.Claim.Better(*m.claim):
		return "a better claim was heard"
	}
	if !in.Elects || !in.alive(d.Active) {
		m.back = time.Time{}
		return ""
	}
	if m.back.IsZero() {
		m.back = now
	}
	if now.Sub(m.back) >= handBack {
		return "those that the Gateway object names are back"
	}
	return ""
}

// take makes a claim.
func (m *Machine) take(in Input, dead []string) {
	active := []string{in.Node}
	for _, c := range in.Domain.Carriers {
		if c != in.Node && !slices.Contains(dead, c) {
			active = append(active, c)
		}
	}
	slices.Sort(active)
	epoch := in.Domain.Epoch
	if c := in.Domain.Claim; c != nil {
		epoch = max(epoch, c.Epoch)
	}
	m.claim = &control.Claim{Gateway: in.Gateway, Epoch: epoch + 1, Active: active, From: in.Key}
	m.base, m.back = baseOf(in.Domain), time.Time{}
}

func (in *Input) listed() bool {
	return slices.ContainsFunc(in.Domain.Members, func(m control.Member) bool { return m.Node == in.Node && m.Key == in.Key })
}

// limit is how many pings a node may miss.
func (in *Input) limit(node string) int {
	n := deadAfter
	if in.Elects {
		n += patience
	}
	if !in.Readings[node].Answered {
		n = max(n, firstAfter)
	}
	return n
}

// dead returns the carriers that are, and by how many pings the one that died
// last is beyond its limit.
func (in *Input) dead() (dead []string, beyond int) {
	for _, c := range in.Domain.Carriers {
		r, ok := in.Readings[c]
		over := r.Missed - in.limit(c)
		if c == in.Node || !ok || over < 0 {
			continue
		}
		if len(dead) == 0 || over > beyond {
			beyond = over
		}
		dead = append(dead, c)
	}
	return dead, beyond
}

// rank is for how many pings this node leaves the word to others: none when it
// has it already.
func (in *Input) rank() int {
	if c := in.Domain.Claim; c != nil && c.From == in.Key {
		return 0
	}
	var order []string
	for _, carries := range []bool{false, true} {
		for _, m := range in.Domain.Members {
			if slices.Contains(in.Domain.Carriers, m.Node) == carries && in.Readings[m.Node].Missed < in.limit(m.Node) {
				order = append(order, m.Node)
			}
		}
	}
	return min(maxRank, slices.Index(order, in.Node))
}

// alive reports whether all the nodes answer; this node does.
func (in *Input) alive(nodes []string) bool {
	for _, n := range nodes {
		r, ok := in.Readings[n]
		if n != in.Node && (!ok || r.Missed > 0 || !r.Answered) {
			return false
		}
	}
	return true
}

// Watch returns the members that a node must ping once a second, to know whether
// they are dead, or back: none when it is not listed itself. Doubt says that one of
// the carriers has missed some: then it is time to see whether others answer.
func Watch(in Input) (nodes []string, doubt bool) {
	d := in.Domain
	if d == nil || !in.listed() {
		return nil, false
	}
	for _, m := range d.Members {
		carries := slices.Contains(d.Carriers, m.Node)
		if m.Node != in.Node && (carries || slices.Contains(d.Active, m.Node)) {
			nodes = append(nodes, m.Node)
			doubt = doubt || carries && in.Readings[m.Node].Missed >= 2
		}
	}
	return nodes, doubt
}
