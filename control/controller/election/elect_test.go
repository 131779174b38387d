package election

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"corax/control/api/v1beta1"
)

// cands reads candidates from a line: names by spaces, each with marks: "-" dead,
// "!" gone, "k" no key, "c" cordoned, "r" not Ready, "u" unpinned, "?" not settled,
// and "@" before the zone.
func cands(t *testing.T, line string) []Candidate {
	t.Helper()
	var out []Candidate
	for f := range strings.FieldsSeq(line) {
		name, zone, _ := strings.Cut(f, "@")
		name, marks, _ := strings.Cut(name, ":")
		c := Candidate{Node: name, Zone: zone, Eligible: true, Settled: true}
		for _, m := range marks {
			switch m {
			case '-':
				c.Eligible, c.Why = false, CauseLapsed
			case '!':
				c.Eligible, c.Gone, c.Why = false, true, CauseGone
			case 'k':
				c.Demerits |= noKey
			case 'c':
				c.Demerits |= cordoned
			case 'r':
				c.Demerits |= notReady
			case 'u':
				c.Demerits |= unpinned
			case '?':
				c.Settled = false
			default:
				t.Fatalf("mark %q", m)
			}
		}
		out = append(out, c)
	}
	return out
}

func TestElect(t *testing.T) {
	for _, tt := range []struct {
		name     string
		present  string
		list     string
		replicas int
		active   string
		leaving  string
		lost     map[string]string
		stale    bool
	}{
		{name: "the first of the list", list: "a b c", replicas: 1, active: "a"},
		{name: "nobody listed", replicas: 1, stale: true},
		{name: "nobody eligible and nobody active", list: "a:- b:-", replicas: 1, stale: true},
		{name: "sticky", present: "b", list: "a b c", replicas: 1, active: "b"},
		{
			name: "a dead one is replaced at once", present: "a", list: "a:- b c", replicas: 1, active: "b",
			lost: map[string]string{"a": CauseLapsed},
		},
		{
			name: "who comes back does not get its seat back", present: "b", list: "a b", replicas: 1, active: "b",
		},
		{name: "all dead: who is active stays", present: "b", list: "a:- b:- c:-", replicas: 1, active: "b", stale: true},
		{
			name: "all dead, one gone for good: the others stay", present: "a b", list: "a:! b:- c:-", replicas: 2,
			active: "b", lost: map[string]string{"a": CauseGone}, stale: true,
		},
		{
			name: "one of the stayed comes back: only it counts", present: "a b", list: "a:- b", replicas: 1,
			active: "b", lost: map[string]string{"a": CauseLapsed},
		},
		{
			name: "not listed any more", present: "x", list: "a", replicas: 1, active: "a",
			lost: map[string]string{"x": CauseUnlisted},
		},
		{
			name: "cordoned: the new one is active first", present: "a", list: "a:c b:?", replicas: 1,
			active: "a b", leaving: "a",
		},
		{
			name: "and then the old one goes", present: "a b", list: "a:c b", replicas: 1, active: "b",
			lost: map[string]string{"a": handedOver + CauseCordoned},
		},
		{
			name: "while the new one has not settled both stay", present: "a b", list: "a:c b:?", replicas: 1,
			active: "a b", leaving: "a",
		},
		{
			name: "the new one dies while taking over", present: "a b", list: "a:c b:- c:?", replicas: 1,
			active: "a c", leaving: "a", lost: map[string]string{"b": CauseLapsed},
		},
		{
			name: "the old one dies before the new one has settled", present: "a b", list: "a:c- b:?", replicas: 1,
			active: "b", lost: map[string]string{"a": CauseLapsed},
		},
		{name: "cordoned with nobody else", present: "a", list: "a:c b:-", replicas: 1, active: "a"},
		{name: "cordoned, all others too", present: "a", list: "a:c b:c", replicas: 1, active: "a"},
		{name: "cordoned is better than without key", present: "a", list: "a:c b:k", replicas: 1, active: "a"},
		{
			name: "uncordoned again while handing over: the first in the list stays", present: "a b", list: "a b:?", replicas: 1,
			active: "a", lost: map[string]string{"b": CauseSurplus},
		},
		{name: "who has a key comes first", list: "a:k b", replicas: 1, active: "b"},
		{
			name: "who has no key makes room at once", present: "a", list: "a:k b:?", replicas: 1, active: "b",
			lost: map[string]string{"a": handedOver + CauseNoKey},
		},
		{name: "nobody has a key", list: "a:k b:k", replicas: 1, active: "a"},
		{name: "pinned first", list: "a:u b c:u", replicas: 1, active: "b"},
		{name: "pinned takes over gracefully", present: "a", list: "a:u b", replicas: 1, active: "a b", leaving: "a"},
		{name: "pinned but cordoned does not", present: "a", list: "a:u b:c", replicas: 1, active: "a"},
		{name: "Lease fresh, node not Ready: hands over", present: "a", list: "a:r b", replicas: 1, active: "a b", leaving: "a"},
		{name: "several, spread over zones", list: "a@x b@x c@y d@z", replicas: 3, active: "a c d"},
		{
			name: "a seat is filled in the zone that has none", present: "a b", list: "a@x b@y:- c@x d@y", replicas: 2,
			active: "a d", lost: map[string]string{"b": CauseLapsed},
		},
		{name: "zones do not move who sits", present: "a b", list: "a@x b@x c@y", replicas: 2, active: "a b"},
		{name: "fewer candidates than seats", list: "a b:-", replicas: 3, active: "a"},
		{
			name: "Replicas lowered: the worst goes", present: "a b c", list: "a b:c c", replicas: 2, active: "a c",
			lost: map[string]string{"b": handedOver + CauseCordoned},
		},
		{
			name: "Replicas lowered among equals: the last goes", present: "a b", list: "a b", replicas: 1, active: "a",
			lost: map[string]string{"b": CauseSurplus},
		},
		{name: "Replicas raised", present: "b", list: "a b", replicas: 2, active: "a b"},
		{name: "off", present: "a", list: "a b", replicas: 0, lost: map[string]string{"a": CauseOff}},
		{
			name: "two hand over one each", present: "a b", list: "a:c b:c c d", replicas: 2, active: "a b c d", leaving: "a b",
		},
		{
			name: "two hand over and one has settled: the better of the old ones stays", present: "a b c d", list: "a:c b:r c d:?", replicas: 2,
			active: "b c d", leaving: "b", lost: map[string]string{"a": handedOver + CauseCordoned},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// A zone is written after the marks or before them.
			list := cands(t, tt.list)
			for i := range list {
				if z, marks, ok := strings.Cut(list[i].Zone, ":"); ok {
					list[i].Zone = z
					if marks == "-" {
						list[i].Eligible, list[i].Why = false, CauseLapsed
					}
				}
			}
			got := Elect(strings.Fields(tt.present), list, tt.replicas)
			want := Seats{Active: strings.Fields(tt.active), Leaving: strings.Fields(tt.leaving), Lost: tt.lost, Stale: tt.stale}
			if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

// TestElectComesToRest elects again from every outcome: after a hand-over nothing
// may change any more when nothing happens, with no more active than seats, and
// never may there be more than twice the seats.
func TestElectComesToRest(t *testing.T) {
	marks := []string{"", ":-", ":c", ":k", ":u", ":r", ":!", ":cu"}
	for _, a := range marks {
		for _, b := range marks {
			for _, c := range marks {
				list := cands(t, "a"+a+" b"+b+" c"+c)
				for replicas := range 4 {
					for _, present := range [][]string{nil, {"a"}, {"b"}, {"c"}, {"a", "c"}, {"a", "b", "c"}} {
						rest(t, list, replicas, present)
					}
				}
				if d := cmp.Diff(cands(t, "a"+a+" b"+b+" c"+c), list); d != "" {
					t.Fatalf("the candidates were changed:\n%s", d)
				}
			}
		}
	}
}

func rest(t *testing.T, list []Candidate, replicas int, present []string) {
	t.Helper()
	was := present
	for round := range 3 {
		s := Elect(was, list, replicas)
		if len(s.Active) > 2*replicas && !s.Stale {
			t.Fatalf("%v of %v: %d seats and %v", was, list, replicas, s)
		}
		checkLost(t, was, s)
		if round == 2 && (!slices.Equal(s.Active, was) || len(s.Leaving) > 0 || len(s.Active) > replicas && !s.Stale) {
			t.Fatalf("%v of %v, %d seats: no rest: %v", present, list, replicas, s)
		}
		was = s.Active
	}
}

// checkLost checks that everybody who was active is, or has a cause.
func checkLost(t *testing.T, present []string, s Seats) {
	t.Helper()
	var lost []string
	for _, p := range present {
		if !slices.Contains(s.Active, p) {
			lost = append(lost, p)
		}
	}
	if got := slices.Sorted(maps.Keys(s.Lost)); !slices.Equal(got, lost) {
		t.Fatalf("lost %v, with causes for %v", lost, got)
	}
	for n, why := range s.Lost {
		if why == "" {
			t.Fatalf("%s was lost for no cause", n)
		}
	}
}

func TestJudge(t *testing.T) {
	const key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	entry := func(node, kind, key string) v1beta1.Endpoint {
		e := v1beta1.Endpoint{NodeName: node, Type: kind}
		if key != "" {
			e.Config = map[string]string{v1beta1.ConfigPublicKey: key}
		}
		return e
	}
	nodes := []Node{
		{Name: "cordoned", Ready: true, Cordoned: true, Pinned: true, Zone: "z"},
		{Name: "down", Pinned: true},
		{Name: "up", Ready: true, Pinned: true},
	}
	for _, tt := range []struct {
		name      string
		node      string
		key       string
		standing  Standing
		alone     bool
		want      Candidate
		otherType bool
	}{
		{name: "no Lease, Ready", node: "up", key: key, want: Candidate{Eligible: true}},
		{name: "no Lease, not Ready", node: "down", key: key, want: Candidate{Why: CauseNotReady, Demerits: notReady}},
		{name: "fresh, not Ready", node: "down", key: key, standing: Standing{State: Fresh}, want: Candidate{Eligible: true, Demerits: notReady}},
		{name: "lapsed, Ready", node: "up", key: key, standing: Standing{State: Lapsed}, want: Candidate{Why: CauseLapsed}},
		{
			name: "released", node: "up", key: key, standing: Standing{Released, "device down"},
			want: Candidate{Why: CauseNoTraffic + ": device down"},
		},
		{name: "released without a word", node: "up", key: key, standing: Standing{State: Released}, want: Candidate{Why: CauseNoTraffic}},
		{name: "the only candidate keeps no Lease", node: "up", key: key, standing: Standing{State: Lapsed}, alone: true, want: Candidate{Eligible: true}},
		{name: "cordoned", node: "cordoned", key: key, want: Candidate{Eligible: true, Demerits: cordoned, Zone: "z"}},
		{name: "no key", node: "up", want: Candidate{Eligible: true, Demerits: noKey}},
		{name: "a key that is none", node: "up", key: "x", want: Candidate{Eligible: true, Demerits: noKey}},
		{name: "the key of the other type counts", node: "up", otherType: true, want: Candidate{Eligible: true}},
		{name: "not in the domain", node: "gone", key: key, want: Candidate{Gone: true, Why: CauseGone}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Domain{
				Nodes:     nodes,
				Endpoints: []v1beta1.Endpoint{entry(tt.node, v1beta1.TypeTunnel, tt.key)},
				Standing: func(n string) Standing {
					if n != tt.node {
						return Standing{}
					}
					return tt.standing
				},
			}
			if !tt.alone {
				d.Endpoints = append(d.Endpoints, entry("other", v1beta1.TypeProxy, ""))
			}
			if tt.otherType {
				d.Endpoints = append(d.Endpoints, entry(tt.node, v1beta1.TypeProxy, key))
			}
			tt.want.Node, tt.want.Settled = tt.node, true
			if d := cmp.Diff([]Candidate{tt.want}, d.Judge(v1beta1.TypeTunnel)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}
