package path

import "slices"

const maxTransitions = 100

// history keeps the last transitions, in a ring once it is full.
type history struct {
	list []Transition
	head int // oldest
}

func (h *history) add(t Transition) {
	if len(h.list) < maxTransitions {
		h.list = append(h.list, t)
		return
	}
	h.list[h.head] = t
	h.head = (h.head + 1) % maxTransitions
}

// all returns a copy, oldest first.
func (h *history) all() []Transition {
	return slices.Concat(h.list[h.head:], h.list[:h.head])
}
