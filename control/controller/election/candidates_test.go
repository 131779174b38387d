package election

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"corax/control/api/v1beta1"
)

// nodes reads nodes from a line: names by spaces, Ready ones, with marks: "-" not
// Ready, "c" cordoned, "p" pinned, and "@" before the zone.
func nodes(t *testing.T, line string) []Node {
	t.Helper()
	var out []Node
	for f := range strings.FieldsSeq(line) {
		f, zone, _ := strings.Cut(f, "@")
		name, marks, _ := strings.Cut(f, ":")
		n := Node{Name: name, Zone: zone, Ready: true}
		for _, m := range marks {
			switch m {
			case '-':
				n.Ready = false
			case 'c':
				n.Cordoned = true
			case 'p':
				n.Pinned = true
			default:
				t.Fatalf("mark %q", m)
			}
		}
		out = append(out, n)
	}
	SortNodes(out)
	return out
}

// entries reads entries of both types, or of one: "a b/tunnel".
func entries(line string) []v1beta1.Endpoint {
	var out []v1beta1.Endpoint
	for f := range strings.FieldsSeq(line) {
		name, kind, one := strings.Cut(f, "/")
		if one {
			out = append(out, v1beta1.Endpoint{NodeName: name, Type: kind})
			continue
		}
		out = append(out, v1beta1.Endpoint{NodeName: name, Type: v1beta1.TypeTunnel, Port: 4500},
			v1beta1.Endpoint{NodeName: name, Type: v1beta1.TypeProxy})
	}
	return out
}

// apply is what the API server makes of a listing.
func apply(list []v1beta1.Endpoint, l Listing) []v1beta1.Endpoint {
	out := slices.Clone(list)
	for _, i := range l.Remove {
		out = slices.Delete(out, i, i+1)
	}
	return append(out, l.Add...)
}

var both = []string{v1beta1.TypeTunnel, v1beta1.TypeProxy}

func TestCandidates(t *testing.T) {
	for _, tt := range []struct {
		name    string
		nodes   string
		entries string
		ours    string // all nodes of entries, unless given
		persons string // of entries, instead of ours
		active  string
		types   []string
		min     int
		want    string
	}{
		{name: "a domain of one", nodes: "a", want: "a"},
		{name: "nobody is Ready", nodes: "a:- b:-"},
		{name: "at most three Ready ones", nodes: "a b:- c d e f", want: "a c d"},
		{name: "spread over zones", nodes: "a@x b@x c@x d@y e@z", want: "a d e"},
		{name: "cordoned ones for want of others", nodes: "a:c b c:c d", want: "b d a"},
		{name: "one mode", nodes: "a b", types: both[:1], want: "a/tunnel b/tunnel"},
		{name: "no mode", nodes: "a b", types: []string{}},
		{name: "a mode that goes off keeps its entries", nodes: "a", entries: "a", types: []string{}, want: "a"},
		{name: "a mode that goes on adds entries", nodes: "a", entries: "a/tunnel", want: "a/tunnel a/proxy"},
		{name: "who is listed stays", nodes: "a b c d e", entries: "c d e", want: "c d e"},
		{name: "nodes that come are added until there are three", nodes: "a b c", entries: "b", want: "b a c"},
		{name: "one of three not Ready: it stays, nobody else comes", nodes: "a:- b c d", entries: "a b c", want: "a b c"},
		{name: "two of three not Ready: two others come", nodes: "a:- b:- c d e", entries: "a b c", want: "a b c d e"},
		{name: "and go again when both are back", nodes: "a b c d e", entries: "a b c d e", want: "a b c"},
		{
			name: "but not while active", nodes: "a b c d e", entries: "a b c d e", active: "d",
			want: "a b d",
		},
		{name: "a node that left the domain goes at once", nodes: "b c", entries: "a b c", active: "a", want: "b c"},
		{name: "a node that a person listed stays wherever it is", nodes: "b", entries: "a b", persons: "a", want: "a b"},
		{name: "persons' entries count", nodes: "a b c d", entries: "d", persons: "d", want: "d a b"},
		{name: "a person's entry of one type stays the only one", nodes: "a", entries: "a/tunnel", persons: "a", want: "a/tunnel"},
		{name: "pinned ones only", nodes: "a b:p c d:p", want: "b d"},
		{name: "pinned ones need not be Ready", nodes: "a b:p-", want: "b"},
		{name: "at most eight pinned", nodes: "a:p b:p c:p d:p e:p f:p g:p h:p i:p j:p", want: "a b c d e f g h"},
		{
			name: "a pin later: the others go, but who is active hands over first", nodes: "a b c d:p", entries: "a b c", active: "b",
			want: "b d",
		},
		{name: "and goes then", nodes: "a b c d:p", entries: "b d", active: "d", want: "d"},
		{name: "a pin with a person's entry", nodes: "a b:p", entries: "a", persons: "a", want: "a b"},
		{
			name: "pins gone: at most three Ready", nodes: "a b c d e f g", entries: "a b c d e f g", active: "g",
			want: "a b g",
		},
		{
			name: "at least as many proxies as a person wants", nodes: "a", entries: "b a c", min: 2,
			want: "a c/proxy",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := Want{
				Nodes: nodes(t, tt.nodes), Endpoints: entries(tt.entries), Active: strings.Fields(tt.active),
				Types: both, MinProxies: tt.min,
			}
			if tt.types != nil {
				w.Types = tt.types
			}
			for _, n := range names(w.Endpoints) {
				if !slices.Contains(strings.Fields(tt.persons), n) {
					w.Ours = append(w.Ours, n)
				}
			}
			l := Candidates(w)
			got := apply(w.Endpoints, l)
			if d := cmp.Diff(entries(tt.want), got, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(v1beta1.Endpoint{}, "Port")); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			// Once written, there is nothing more to write.
			w.Endpoints, w.Ours = got, l.Ours
			if again := Candidates(w); !again.Same(w.Ours) {
				t.Errorf("not at rest: %+v", again)
			}
		})
	}
}

func TestPassing(t *testing.T) {
	for _, tt := range []struct {
		name, nodes, entries, persons string
		min                           int
		want                          string
	}{
		{name: "nobody is pinned", nodes: "a b c d e", entries: "a b c d e"},
		{name: "the pinned one last", nodes: "a b:p", entries: "a b", want: "a"},
		{name: "all are", nodes: "a:p b:p", entries: "a b"},
		{name: "a person's stays", nodes: "a b:p c", entries: "a b c", persons: "a", want: "c"},
		{name: "a person wants two proxies", nodes: "a b:p", entries: "a b", min: 2, want: "a/tunnel"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := Want{Nodes: nodes(t, tt.nodes), Endpoints: entries(tt.entries), Types: both, MinProxies: tt.min}
			w.Active = names(w.Endpoints)
			for _, n := range w.Active {
				if !slices.Contains(strings.Fields(tt.persons), n) {
					w.Ours = append(w.Ours, n)
				}
			}
			want := map[Entry]bool{}
			for _, e := range entries(tt.want) {
				want[Entry{e.Type, e.NodeName}] = true
			}
			if d := cmp.Diff(want, w.Passing(), cmpopts.EquateEmpty()); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestCandidatesEntries(t *testing.T) {
	filled := v1beta1.Endpoint{
		NodeName: "a", Type: v1beta1.TypeTunnel, Port: 4501, UnderNAT: true, PublicIP: "192.0.2.1",
		Config: map[string]string{v1beta1.ConfigPublicKey: "k"},
	}
	w := Want{Nodes: nodes(t, "a b"), Endpoints: []v1beta1.Endpoint{filled}, Ours: []string{"a"}, Types: both, UnderNAT: false}
	l := Candidates(w)
	want := []v1beta1.Endpoint{
		{NodeName: "a", Type: v1beta1.TypeProxy, UnderNAT: true},
		{NodeName: "b", Type: v1beta1.TypeTunnel, Port: 4500, UnderNAT: true},
		{NodeName: "b", Type: v1beta1.TypeProxy, UnderNAT: true},
	}
	if d := cmp.Diff(Listing{Add: want, Ours: []string{"a", "b"}}, l); d != "" {
		t.Errorf("new entries copy underNAT, and filled ones are not touched (-want +got)\n%s", d)
	}
	w.Endpoints, w.Ours, w.UnderNAT = nil, nil, true
	if l := Candidates(w); !l.Add[0].UnderNAT {
		t.Error("the first entry has not what the domain says")
	}
}

// TestCandidatesBounds lists at random: never more entries than the CRD takes, never
// one twice, never a person's touched, and always at rest after one write.
func TestCandidatesBounds(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		w := Want{Types: both}
		for i := range rnd.IntN(40) {
			w.Nodes = append(w.Nodes, Node{
				Name: fmt.Sprintf("n%02d", i), Zone: fmt.Sprint(rnd.IntN(3)), Ready: rnd.IntN(3) > 0,
				Cordoned: rnd.IntN(5) == 0, Pinned: rnd.IntN(20) == 0,
			})
		}
		seen := map[string]bool{}
		for range rnd.IntN(64) {
			e := v1beta1.Endpoint{NodeName: fmt.Sprintf("n%02d", rnd.IntN(45)), Type: both[rnd.IntN(2)]}
			if seen[e.Type+e.NodeName] {
				continue
			}
			seen[e.Type+e.NodeName] = true
			w.Endpoints = append(w.Endpoints, e)
			if rnd.IntN(3) > 0 {
				w.Ours = append(w.Ours, e.NodeName)
			}
			if rnd.IntN(8) == 0 {
				w.Active = append(w.Active, e.NodeName)
			}
		}
		checkListing(t, w)
	}
}

func checkListing(t *testing.T, w Want) {
	t.Helper()
	l := Candidates(w)
	for _, i := range l.Remove {
		if n := w.Endpoints[i].NodeName; !slices.Contains(w.Ours, n) {
			t.Fatalf("a person's entry of %s was removed", n)
		}
	}
	after := apply(w.Endpoints, l)
	if len(after) > MaxEntries {
		t.Fatalf("%d entries", len(after))
	}
	seen := map[string]bool{}
	for _, e := range after {
		if k := e.Type + "/" + e.NodeName; seen[k] {
			t.Fatalf("%s twice", k)
		} else {
			seen[k] = true
		}
	}
	for _, a := range w.Active {
		in := slices.ContainsFunc(w.Endpoints, func(e v1beta1.Endpoint) bool { return e.NodeName == a })
		if in && find(w.Nodes, a) != nil && !seen["tunnel/"+a] && !seen["proxy/"+a] {
			t.Fatalf("%s is active and was removed", a)
		}
	}
	w.Endpoints, w.Ours = after, l.Ours
	if again := Candidates(w); !again.Same(w.Ours) {
		t.Fatalf("not at rest: %+v of %+v", again, w)
	}
}
