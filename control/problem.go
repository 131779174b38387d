package control

import (
	"cmp"
	"slices"
	"sort"

	"corax/control/api/v1beta1"
)

// Problem is something in the objects, or between them and this host, that an
// operator should mend. What it touches is left out; everything else is applied.
type Problem struct {
	// Object is what is wrong: "gateway/edge-a", "file/edge-a.yaml",
	// "node/edge-a-1".
	Object string
	// Field is the path inside the object, for example
	// "spec.endpoints[0].publicIP"; empty when the object as a whole is meant.
	Field   string
	Message string
	// Source is where the text stands, "edge-a.yaml:12"; empty when the object
	// did not come from a file.
	Source string
}

// String joins the parts: source, object, field, message. A file is not named
// twice.
func (p Problem) String() string {
	s := p.Object
	if p.Source != "" {
		s = p.Source
		if len(p.Object) < 5 || p.Object[:5] != "file/" {
			s += ": " + p.Object
		}
	}
	if p.Field != "" {
		s += ": " + p.Field
	}
	return s + ": " + p.Message
}

// GatewayObject returns the Object of problems of the Gateway of that name.
func GatewayObject(name string) string { return "gateway/" + name }

// Check lists the bad values of one Gateway, for sources that do not know lines.
func Check(g *v1beta1.Gateway) []Problem {
	var ps []Problem
	for _, e := range g.Validate() {
		ps = append(ps, Problem{Object: GatewayObject(g.Metadata.Name), Field: e.Field, Message: e.Message})
	}
	return ps
}

// SortProblems sorts ps in place and drops repetitions.
func SortProblems(ps []Problem) []Problem {
	sort.Slice(ps, func(i, j int) bool {
		a, b := &ps[i], &ps[j]
		return cmp.Or(
			cmp.Compare(a.Object, b.Object),
			cmp.Compare(a.Field, b.Field),
			cmp.Compare(a.Message, b.Message),
			cmp.Compare(a.Source, b.Source),
		) < 0
	})
	return slices.Compact(ps)
}
