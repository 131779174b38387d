package control

import (
	"cmp"
	"fmt"
	"sort"

	"corax/control/api/v1beta1"
	"corax/dataplane/key"
)

// keyed is a key that an entry says is its node's.
type keyed struct {
	member *member
	key    key.Public
	next   bool // the one that the node will use next
	rank   rank
}

// rank orders those who say that they have the same key, the lowest first. A node
// writes its own entry as it likes; the copies in status are the controller's,
// which copies no key that somebody else's entry had before.
type rank int

const (
	confirmed     rank = iota // status has it, as the node's key or its next one
	nextConfirmed             // status has it as the next one
	unknown                   // status does not have the node
	contradicted              // status has another key of the node
	nextUnknown
)

// readKeys reads the public keys and those that nodes will use next. Of two members
// with one key one keeps it: two nodes with one identity could not be told apart.
// It is the one that status confirms, else that of an exposed Gateway, else the
// first by name.
func (m *mesh) readKeys() {
	var all []keyed
	for _, d := range m.domains {
		copies := d.copies()
		for _, e := range d.members {
			k, _ := e.entry.PublicKey() // an error is reported by the source
			if k.IsZero() {
				continue
			}
			all = append(all, keyed{e, k, false, copies.rank(e.node, k, false)})
			if next, _ := e.entry.NextPublicKey(); !next.IsZero() && next != k {
				all = append(all, keyed{e, next, true, copies.rank(e.node, next, true)})
			}
		}
	}
	sort.SliceStable(all, func(i, j int) bool {
		a, b := &all[i], &all[j]
		return cmp.Or(cmp.Compare(a.rank, b.rank), compareBool(a.member.domain.gw.Exposed(), b.member.domain.gw.Exposed())) < 0
	})
	for _, c := range all {
		m.take(c)
	}
	// The next key of a node whose own was taken by another is of no use.
	for _, c := range all {
		if c.next && c.member.key.IsZero() && m.ofKey[c.key] == c.member {
			delete(m.ofKey, c.key)
			c.member.other = key.Public{}
		}
	}
}

// take gives a key to its member, unless another has it.
func (m *mesh) take(c keyed) {
	e := c.member
	if other := m.ofKey[c.key]; other != nil {
		m.report(e.domain, e.field+c.field(), "%s has the same public key; that of node %s is left out", other, e.node)
		return
	}
	m.ofKey[c.key] = e
	if c.next {
		e.other = c.key
	} else {
		e.key = c.key
	}
}

func (c *keyed) field() string {
	name := v1beta1.ConfigPublicKey
	if c.next {
		name = v1beta1.ConfigNextPublicKey
	}
	return fmt.Sprintf(".config[%q]", name)
}

// copies are the active endpoints of status, by node.
type copies map[string][]*v1beta1.Endpoint

func (d *domain) copies() copies {
	c := copies{}
	for i := range d.gw.Status.ActiveEndpoints {
		e := &d.gw.Status.ActiveEndpoints[i]
		c[e.NodeName] = append(c[e.NodeName], e)
	}
	return c
}

// rank says what status knows of a node's key.
func (c copies) rank(node string, k key.Public, next bool) rank {
	known := false
	for _, e := range c[node] {
		now, _ := e.PublicKey()
		then, _ := e.NextPublicKey()
		switch known = known || !now.IsZero(); {
		case next && then == k:
			return nextConfirmed
		case !next && (now == k || then == k):
			return confirmed
		}
	}
	switch {
	case next:
		return nextUnknown
	case known:
		return contradicted
	default:
		return unknown
	}
}

// useKeys picks, of the two keys of a node that changes its key, the one that was
// heard last.
func (m *mesh) useKeys(l Local) {
	for _, d := range m.domains {
		for _, e := range d.members {
			if !e.other.IsZero() && (e.other == l.PublicKey || e.key != l.PublicKey && l.Heard[e.other].After(l.Heard[e.key])) {
				e.key, e.other = e.other, e.key
			}
		}
	}
}

func (e *member) nextKeyField() string {
	return fmt.Sprintf("%s.config[%q]", e.field, v1beta1.ConfigNextPublicKey)
}

func (e *member) keyField() string {
	return fmt.Sprintf("%s.config[%q]", e.field, v1beta1.ConfigPublicKey)
}
