package failover_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"corax/control"
	"corax/control/failover"
	"corax/dataplane/key"
)

// domain is a domain of the nodes a, b, c ..., listed in this order.
func domain(epoch uint64, active, carriers string, claim *control.Claim) *control.Domain {
	d := &control.Domain{Epoch: epoch, Active: strings.Fields(active), Carriers: strings.Fields(carriers), Claim: claim}
	for _, n := range []string{"a", "b", "c", "d"} {
		d.Members = append(d.Members, control.Member{Node: n, Key: keyOf(n)})
	}
	return d
}

func keyOf(node string) key.Public { return key.Public{node[0]} }

func claim(epoch uint64, from, active string) *control.Claim {
	return &control.Claim{Gateway: "g", Epoch: epoch, From: keyOf(from), Active: strings.Fields(active)}
}

// missed makes readings of "a:4 b:0"; a leading "-" means that it never answered.
func missed(text string) map[string]failover.Reading {
	out := map[string]failover.Reading{}
	for _, f := range strings.Fields(text) {
		name, n, _ := strings.Cut(f, ":")
		var r failover.Reading
		_, _ = fmt.Sscan(n, &r.Missed)
		r.Answered = !strings.HasPrefix(name, "-")
		out[strings.TrimPrefix(name, "-")] = r
	}
	return out
}

func TestMachine(t *testing.T) {
	type step struct {
		now  time.Duration
		in   failover.Input
		want *control.Claim
		why  string // contained
	}
	on := func(d *control.Domain, readings string) failover.Input {
		return failover.Input{Domain: d, Readings: missed(readings), Contact: true}
	}
	elected := func(in failover.Input) failover.Input { in.Elects = true; return in }
	alone := func(in failover.Input) failover.Input { in.Contact = false; return in }
	plain := domain(0, "a", "a", nil)
	for _, tt := range []struct {
		name, node string
		steps      []step
	}{
		{"the first standby takes over, the object catches up", "b", []step{
			{0, on(plain, "a:0"), nil, ""},
			{1, on(plain, "a:3"), nil, ""},
			{2, on(plain, "a:4"), claim(1, "b", "b"), "a of gateway g did not answer 4 pings"},
			{3, on(domain(0, "a", "b", claim(1, "b", "b")), "a:5"), claim(1, "b", "b"), ""},
			{4, on(domain(0, "a", "b", claim(1, "b", "b")), "a:0"), claim(1, "b", "b"), ""}, // it is back, and stands down
			{5, on(domain(1, "c", "c", nil), "c:0"), nil, "caught up"},
		}},
		{"the second waits for a ping more", "c", []step{
			{0, on(plain, "a:4"), nil, ""},
			{1, on(plain, "a:5"), claim(1, "c", "c"), "5 pings"},
		}},
		{"the second hears the first", "c", []step{
			{0, on(plain, "a:4"), nil, ""},
			{1, on(domain(0, "a", "b", claim(1, "b", "b")), "a:5 b:0"), nil, ""},
			{2, on(domain(0, "a", "b", claim(1, "b", "b")), "a:9 b:4"), claim(2, "c", "c"), "b of gateway g"},
		}},
		{"who never answered may be starting", "b", []step{
			{0, on(plain, "-a:4"), nil, ""},
			{1, on(plain, "-a:14"), nil, ""},
			{2, on(plain, "-a:15"), claim(1, "b", "b"), "15 pings"},
		}},
		{"cut off", "b", []step{
			{0, alone(on(plain, "a:40")), nil, ""},
			{1, on(plain, "a:41"), nil, ""}, // a may be about to answer
			{2, on(plain, "a:42"), nil, ""},
			{3, on(plain, "a:43"), claim(1, "b", "b"), "43"},
			{4, alone(on(domain(0, "a", "b", claim(1, "b", "b")), "a:44")), claim(1, "b", "b"), ""},
		}},
		{"an active one that was cut off stands down, and does not blame its successor", "a", []step{
			{0, on(plain, "b:0"), nil, ""},
			{1, on(plain, "b:7"), nil, ""},
			{2, on(domain(0, "a", "b", claim(1, "b", "b")), "b:7"), nil, ""},
			{3, on(domain(0, "a", "b", claim(1, "b", "b")), "b:8"), nil, ""},
			{4, on(domain(0, "a", "b", claim(1, "b", "b")), "b:0"), nil, ""},
			{5, on(domain(0, "a", "b", claim(1, "b", "b")), "b:3"), nil, ""},
			{6, on(domain(0, "a", "b", claim(1, "b", "b")), "b:4"), claim(2, "a", "a"), "b of gateway g did not answer 4"},
		}},
		{"cut off, and then all is well", "b", []step{
			{0, alone(on(plain, "a:40")), nil, ""},
			{1, on(plain, "a:40"), nil, ""},
			{2, on(plain, "a:0"), nil, ""},
			{3, on(plain, "a:0"), nil, ""},
			{4, on(plain, "a:0"), nil, ""},
			{5, on(plain, "a:4"), claim(1, "b", "b"), "4 pings"},
		}},
		{"where somebody elects he has the first word", "b", []step{
			{0, elected(on(plain, "a:7")), nil, ""},
			{1, elected(on(plain, "a:8")), claim(1, "b", "b"), "8 pings"},
			{2, elected(on(domain(0, "a", "b", claim(1, "b", "b")), "a:0")), claim(1, "b", "b"), ""},
			{11, elected(on(domain(0, "a", "b", claim(1, "b", "b")), "a:1")), claim(1, "b", "b"), ""},
			{12, elected(on(domain(0, "a", "b", claim(1, "b", "b")), "a:0")), claim(1, "b", "b"), ""},
			{21, elected(on(domain(0, "a", "b", claim(1, "b", "b")), "a:0")), claim(1, "b", "b"), ""},
			{22, elected(on(domain(0, "a", "b", claim(1, "b", "b")), "a:0")), nil, "are back"},
		}},
		{"the object names others without an epoch", "b", []step{
			{0, on(plain, "a:4"), claim(1, "b", "b"), "4"},
			{1, on(domain(0, "d", "b", claim(1, "b", "b")), "a:9 d:0"), nil, "names others"},
		}},
		{"a tie goes to the lower key", "b", []step{
			{0, on(plain, "a:4"), claim(1, "b", "b"), "4"},
			{1, on(domain(0, "a", "a", claim(1, "a", "a")), "a:0"), nil, "better claim"},
		}},
		{"the object no longer allows it", "b", []step{
			{0, on(plain, "a:4"), claim(1, "b", "b"), "4"},
			{1, on(domain(0, "a", "a", nil), "a:5"), nil, "does not allow"},
		}},
		{"one of two dies: a standby fills the place", "c", []step{
			{0, on(domain(3, "a b", "a b", nil), "a:0 b:4"), claim(4, "c", "a c"), "b of"},
		}},
		{"one of two dies, and no standby is left", "b", []step{
			{0, on(domain(3, "a b", "a b", nil), "a:6"), claim(4, "b", "b"), "a of"}, // c and d had the word
		}},
		{"all die at once", "c", []step{
			{0, on(domain(3, "a b", "a b", nil), "a:4 b:3"), claim(4, "c", "b c"), "a of"},
			{1, on(domain(3, "a b", "b c", claim(4, "c", "b c")), "a:5 b:4"), claim(5, "c", "c"), "b of"},
		}},
		{"a plain node claims nothing", "x", []step{{0, on(plain, "a:99"), nil, ""}}},
		{"in no domain", "b", []step{
			{0, on(plain, "a:4"), claim(1, "b", "b"), "4"},
			{1, on(nil, ""), nil, "left"},
			{2, on(nil, ""), nil, ""},
		}},
		{"left by name only", "b", []step{{0, on(domain(0, "", "", nil), ""), nil, ""}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m failover.Machine
			for _, s := range tt.steps {
				s.in.Node, s.in.Key, s.in.Gateway = tt.node, keyOf(tt.node), "g"
				before := m.Claim()
				why := m.Step(time.Unix(1000, 0).Add(s.now*time.Second), s.in)
				if diff := cmp.Diff(s.want, m.Claim()); diff != "" {
					t.Errorf("at %d: claim (-want +got):\n%s", s.now, diff)
				}
				if !strings.Contains(why, s.why) || (why != "") != (before != m.Claim()) {
					t.Errorf("at %d: %q, want %q", s.now, why, s.why)
				}
			}
		})
	}
}

func TestRestore(t *testing.T) {
	var m failover.Machine
	d := domain(2, "a", "a", nil)
	m.Restore(*claim(3, "b", "b"), d, 2, []string{"c"})
	if m.Claim() != nil {
		t.Error("a claim against other objects is taken up")
	}
	m.Restore(*claim(3, "b", "b"), d, 2, []string{"a"})
	if diff := cmp.Diff(claim(3, "b", "b"), m.Claim()); diff != "" {
		t.Error(diff)
	}
	d.Claim, d.Carriers = m.Claim(), []string{"b"}
	in := failover.Input{Node: "b", Key: keyOf("b"), Gateway: "g", Domain: d, Readings: missed("-a:1"), Contact: true}
	if why := m.Step(time.Unix(0, 0), in); why != "" {
		t.Error(why)
	}
}

func TestWatch(t *testing.T) {
	for _, tt := range []struct {
		node, readings string
		d              *control.Domain
		want           string
		doubt          bool
	}{
		{"b", "a:1", domain(0, "a", "a", nil), "a", false},
		{"b", "a:2", domain(0, "a", "a", nil), "a", true},
		{"a", "", domain(0, "a", "a", nil), "", false},
		{"a", "b:3", domain(0, "a b", "a b", nil), "b", true},
		{"c", "a:9 b:0", domain(0, "a", "b", claim(1, "b", "b")), "a b", false},
		{"x", "a:9", domain(0, "a", "a", nil), "", false},
		{"b", "", nil, "", false},
	} {
		in := failover.Input{Node: tt.node, Key: keyOf(tt.node), Domain: tt.d, Readings: missed(tt.readings)}
		nodes, doubt := failover.Watch(in)
		if strings.Join(nodes, " ") != tt.want || doubt != tt.doubt {
			t.Errorf("%s: %v, %t", tt.node, nodes, doubt)
		}
	}
}
