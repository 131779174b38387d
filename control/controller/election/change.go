package election

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"corax/control/api/v1beta1"
)

// Reasons of the events on a Gateway, as Raven names them.
const (
	EventElected = "ActiveEndpointElected"
	EventLost    = "ActiveEndpointLost"
)

// Change is an endpoint that became active, or is not any more.
type Change struct {
	Node, Type string
	Elected    bool
	// Cause says why it is not active any more.
	Cause string
	// Instead names the active ones of its type now.
	Instead []string
}

// Changes returns what an election changed, lost ones first.
func Changes(before []v1beta1.Endpoint, modes []Mode) []Change {
	var out []Change
	for _, m := range modes {
		was := Active(before, m.Type)
		for node, why := range m.Seats.Lost {
			out = append(out, Change{Node: node, Type: m.Type, Cause: why, Instead: m.Seats.Active})
		}
		for _, node := range m.Seats.Active {
			if !slices.Contains(was, node) {
				out = append(out, Change{Node: node, Type: m.Type, Elected: true})
			}
		}
	}
	slices.SortFunc(out, func(a, b Change) int {
		switch {
		case a.Elected != b.Elected && b.Elected:
			return -1
		case a.Elected != b.Elected:
			return 1
		}
		return cmp.Or(cmp.Compare(b.Type, a.Type), cmp.Compare(a.Node, b.Node))
	})
	return out
}

// Reason is the reason of the change's event.
func (c Change) Reason() string {
	if c.Elected {
		return EventElected
	}
	return EventLost
}

// String says what happened, for an event.
func (c Change) String() string {
	if c.Elected {
		return fmt.Sprintf("node %s is an active %s endpoint", c.Node, c.Type)
	}
	instead := "nobody is active now"
	if len(c.Instead) > 0 {
		instead = "active now: " + strings.Join(c.Instead, ", ")
	}
	return fmt.Sprintf("node %s is no active %s endpoint any more: %s; %s", c.Node, c.Type, c.Cause, instead)
}

// Hard reports whether an endpoint that was lost for this cause carries nothing any
// more, so that its successor must not wait.
func Hard(cause string) bool {
	switch cause {
	case CauseOff, CauseSurplus:
		return false
	}
	return !strings.HasPrefix(cause, handedOver)
}
