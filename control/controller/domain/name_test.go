package domain_test

import (
	"regexp"
	"testing"

	"corax/control/api/v1beta1"
	"corax/control/controller/domain"
)

// FuzzNames: whatever a pool or node is called, its Gateway gets a name that works
// as a label value and within the name of a Service.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"hangzhou", "1st", "-", "a.b_c", "ÄÖ", "a-", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"} {
		f.Add(s)
	}
	form := regexp.MustCompile(`^[a-z]([-a-z0-9]{0,33}[a-z0-9])?$`)
	f.Fuzz(func(t *testing.T, s string) {
		if s == "" {
			return
		}
		p := domain.Decide(config(), domain.State{Nodes: []domain.Node{
			node("n", poolLabel, s), node(s, edgeLabel, "true"), node("m", master, ""),
		}})
		seen := map[string]bool{}
		for _, g := range p.Create {
			if name := g.Metadata.Name; !form.MatchString(name) || seen[name] {
				t.Errorf("%q of %q", name, g.Metadata.Annotations[v1beta1.AnnotationDomain])
			}
			seen[g.Metadata.Name] = true
		}
		if len(p.Nodes) != 3 {
			t.Errorf("%d labels", len(p.Nodes))
		}
	})
}
