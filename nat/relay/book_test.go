package relay

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"corax/dataplane/key"
)

var (
	h1, h2, h3, h4 = name(0x11), name(0x12), name(0x13), name(0x14)
	ea, eb, ec     = name(0xa), name(0xb), name(0xc)
)

const ms = time.Millisecond

// connected fails unless from has a way to to that arrives, through hubs.
func (w *world) connected(from, to key.Public, hubs ...key.Public) Relay {
	w.t.Helper()
	var got [][]key.Public
	for _, r := range w.books[from].Relays(to) {
		at, origin, way := w.walk(from, r)
		if at != to || origin != from {
			continue
		}
		got = append(got, way)
		if slices.Equal(way, hubs) {
			if !slices.Equal(r.Via, hubs[1:]) {
				w.t.Fatalf("via %v, want %v", r.Via, hubs[1:])
			}
			return r
		}
	}
	w.t.Fatalf("from %x to %x: ways %x", from[0], to[0], got)
	return Relay{}
}

func TestOneHub(t *testing.T) {
	w := newWorld(t, 1, []key.Public{h1}, []key.Public{ea, eb})
	w.session(ea, h1, 10*ms)
	w.session(eb, h1, 30*ms)
	w.books[ea].Ask(eb, []Ask{{Hub: h1}})
	w.settle()
	there := w.connected(ea, eb, h1)
	back := w.connected(eb, ea, h1)
	if there.Cost != 40*ms || back.Cost != 40*ms {
		t.Errorf("costs %v and %v, want 40ms", there.Cost, back.Cost)
	}
	want := map[uint64]Forward{
		there.Label: {ea, eb, back.Label},
		back.Label:  {eb, ea, there.Label},
	}
	if d := cmp.Diff(want, w.books[h1].Forwards()); d != "" {
		t.Error(d)
	}
	// Who was told may answer for as long as it was asked for, and no longer.
	w.books[ea].Ask(eb, nil)
	w.pass(59 * time.Second)
	w.connected(eb, ea, h1)
	w.pass(time.Second)
	if f := w.books[h1].Forwards(); len(f) != 0 {
		t.Errorf("forwards after 60 s: %v", f)
	}
	for _, k := range []key.Public{ea, eb} {
		if f := w.books[k].Forwards(); len(f) != 0 {
			t.Errorf("terminal labels after 60 s: %v", f)
		}
	}
}

func TestEitherSideKeepsTheLabel(t *testing.T) {
	w := newWorld(t, 1, []key.Public{h1}, []key.Public{ea, eb})
	w.session(ea, h1, 10*ms)
	w.session(eb, h1, 30*ms)
	w.books[ea].Ask(eb, []Ask{{Hub: h1}})
	w.settle()
	label := w.connected(ea, eb, h1).Label
	w.books[eb].Ask(ea, []Ask{{Hub: h1}})
	w.books[ea].Ask(eb, nil)
	w.settle()
	for range 10 {
		w.pass(25 * time.Second)
		w.beat()
	}
	if got := w.connected(ea, eb, h1).Label; got != label {
		t.Errorf("label changed from %x to %x", label, got)
	}
}

func TestTwoHubs(t *testing.T) {
	for _, tt := range []struct {
		name string
		ask  []Ask
		both bool
	}{
		{"the hub finds out", []Ask{{Hub: h1}}, false},
		{"asked for by name", []Ask{{h1, h2}}, false},
		{"both ends ask", []Ask{{Hub: h1}}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, 1, []key.Public{h1, h2}, []key.Public{ea, eb})
			w.session(ea, h1, 10*ms)
			w.session(h1, h2, 5*ms)
			w.session(eb, h2, 20*ms)
			w.books[ea].Ask(eb, tt.ask)
			if tt.both {
				w.books[eb].Ask(ea, []Ask{{Hub: h2}})
			}
			w.settle()
			w.check()
			if r := w.connected(ea, eb, h1, h2); r.Cost != 35*ms {
				t.Errorf("cost %v, want 35ms", r.Cost)
			}
			w.connected(eb, ea, h2, h1)
			if n := len(w.books[h1].circuits); n != 1 {
				t.Errorf("%d circuits for one pair", n)
			}
			for range 5 {
				w.pass(25 * time.Second)
				w.beat()
				w.connected(ea, eb, h1, h2)
				w.connected(eb, ea, h2, h1)
			}
			// The end of it reaches the other hub.
			w.books[ea].Ask(eb, nil)
			w.books[eb].Ask(ea, nil)
			w.settle()
			w.pass(25 * time.Second)
			w.beat()
			w.connected(ea, eb, h1, h2)
			w.pass(35 * time.Second)
			w.beat()
			for k, b := range w.books {
				if f := b.Forwards(); len(f) != 0 {
					t.Errorf("%x after the end: %v", k[0], f)
				}
			}
		})
	}
}

// A hub that is itself the origin, or the peer, needs no second relay.
func TestHubsAsEnds(t *testing.T) {
	w := newWorld(t, 1, []key.Public{h1, h2}, []key.Public{ea, eb})
	w.session(ea, h1, 10*ms)
	w.session(h1, h2, 5*ms)
	w.session(eb, h2, 20*ms)
	w.books[h1].Ask(eb, []Ask{{Hub: h2}})
	w.books[ea].Ask(h2, []Ask{{Hub: h1}})
	w.settle()
	w.check()
	w.connected(h1, eb, h2)
	w.connected(eb, h1, h2)
	w.connected(ea, h2, h1)
	w.connected(h2, ea, h1)
}

func TestNoThirdRelay(t *testing.T) {
	w := newWorld(t, 1, []key.Public{h1, h2, h3}, []key.Public{ea, eb})
	w.session(ea, h1, 10*ms)
	w.session(h1, h2, 5*ms)
	w.session(h2, h3, 5*ms)
	w.session(eb, h3, 20*ms)
	w.books[ea].Ask(eb, []Ask{{Hub: h1}})
	w.settle()
	w.beat()
	if r := w.books[ea].Relays(eb); len(r) != 0 {
		t.Errorf("three hubs deep: %v", r)
	}
	w.session(h1, h3, 100*ms)
	w.settle()
	w.connected(ea, eb, h1, h3)

	// A hub that wants for itself knows all hubs: the next one is the last.
	w.session(h1, h3, 0)
	w.books[h1].Ask(eb, []Ask{{Hub: h2}})
	w.settle()
	if r := w.books[h1].Relays(eb); len(r) != 0 {
		t.Errorf("a hub went on to another for a hub: %v", r)
	}
}

func TestTheHubChooses(t *testing.T) {
	setup := func(own, other time.Duration) *world {
		w := newWorld(t, 1, []key.Public{h1, h2}, []key.Public{ea, eb})
		w.session(ea, h1, 10*ms)
		w.session(h1, h2, 5*ms)
		w.session(eb, h1, own)
		w.session(eb, h2, other)
		w.books[h1].SetLinks(w.now, []Link{{h2, eb, other}})
		w.books[ea].Ask(eb, []Ask{{Hub: h1}})
		w.settle()
		return w
	}
	w := setup(40*ms, 30*ms)
	w.connected(ea, eb, h1) // 40 against 35: not clearly
	if n := len(w.books[ea].Relays(eb)); n != 1 {
		t.Errorf("%d ways", n)
	}
	w = setup(100*ms, 30*ms)
	w.connected(ea, eb, h1, h2)

	// A session that appears, or one that gets better, takes over; the old
	// labels live until they lapse.
	w.session(eb, h1, 20*ms)
	w.settle()
	w.connected(ea, eb, h1)
	w.connected(ea, eb, h1, h2)
	for range 3 {
		w.pass(25 * time.Second)
		w.beat()
	}
	if n := len(w.books[ea].Relays(eb)); n != 1 {
		t.Errorf("%d ways after the lapse", n)
	}
}

func TestASessionDies(t *testing.T) {
	w := newWorld(t, 1, []key.Public{h1, h2, h3}, []key.Public{ea, eb})
	w.session(ea, h1, 10*ms)
	w.session(h1, h2, 5*ms)
	w.session(h1, h3, 15*ms)
	w.session(eb, h1, 10*ms)
	w.session(eb, h3, 10*ms)
	w.books[ea].Ask(eb, []Ask{{Hub: h1}})
	w.settle()
	old := w.connected(ea, eb, h1)
	// Without another message of A the hub finds another way.
	w.session(eb, h1, 0)
	w.settle()
	w.check()
	w.connected(ea, eb, h1, h3)
	for _, r := range w.books[ea].Relays(eb) {
		if r.Label == old.Label {
			t.Error("a label whose session is gone is still told")
		}
	}
	w.session(h1, h3, 0)
	w.settle()
	w.check()
	if r := w.books[ea].Relays(eb); len(r) != 0 {
		t.Errorf("ways that are gone: %v", r)
	}
	w.session(eb, h1, 10*ms) // and back
	w.settle()
	w.connected(ea, eb, h1)
}

func TestRelayingOff(t *testing.T) {
	w := newWorld(t, 1, []key.Public{h1}, []key.Public{ea, eb})
	w.session(ea, h1, 10*ms)
	w.session(eb, h1, 30*ms)
	w.books[ea].Ask(eb, []Ask{{Hub: h1}})
	w.settle()
	w.books[h1].SetRelaying(false)
	w.settle()
	for k, b := range w.books {
		if f := b.Forwards(); len(f) != 0 {
			t.Errorf("%x: %v", k[0], f)
		}
	}
	w.beat()
	if n := counter(w.books[h1], "not_relaying"); n == 0 {
		t.Error("refusals are not counted")
	}
}

func counter(b *Book, reason string) uint64 {
	for _, c := range b.Counters() {
		if c.Reason == reason {
			return c.Value
		}
	}
	return 0
}

func TestRefusals(t *testing.T) {
	now := time.Unix(1, 0)
	for _, tt := range []struct {
		name   string
		from   key.Public
		hub    bool
		want   Want
		reason string
	}{
		{"unknown peer", ea, false, Want{Peer: name(0x99)}, "not_allowed"},
		{"may not reach", ec, false, Want{Peer: eb}, "not_allowed"},
		{"origin by an edge", ea, false, Want{Peer: eb, Origin: ec}, "not_hub"},
		{"origin that may not", h2, true, Want{Peer: eb, Origin: ec}, "not_allowed"},
		{"us", ea, false, Want{Peer: h1}, "bad_want"},
		{"itself", ea, false, Want{Peer: ea}, "bad_want"},
		{"nobody", ea, false, Want{}, "bad_want"},
		{"origin is peer", h2, true, Want{Peer: ea, Origin: ea}, "bad_want"},
		{"origin is us", h2, true, Want{Peer: ea, Origin: h1}, "bad_want"},
		{"back to itself", ea, false, Want{Peer: eb, Next: ea}, "bad_want"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, _ := New(Config{Self: h1})
			b.SetRelaying(true)
			b.SetAllowed(now, func(asking, peer key.Public) bool {
				return asking != ec && peer != name(0x99)
			})
			b.SetSessions(now, []Session{{ea, false, ms}, {eb, false, ms}, {ec, false, ms}, {h2, true, ms}, {name(0x99), false, ms}})
			b.Wanted(now, tt.from, tt.hub, []Want{tt.want})
			if n := counter(b, tt.reason); n != 1 {
				t.Errorf("%s: %d, want 1", tt.reason, n)
			}
			if f := b.Forwards(); len(f) != 0 {
				t.Errorf("forwards: %v", f)
			}
		})
	}
}

// A want that our plan does not allow yet is served when it does; what it no
// longer allows ends at once.
func TestPlanChanges(t *testing.T) {
	w := newWorld(t, 1, []key.Public{h1}, []key.Public{ea, eb})
	no := func(key.Public, key.Public) bool { return false }
	yes := func(key.Public, key.Public) bool { return true }
	w.books[h1].SetAllowed(w.now, no)
	w.session(ea, h1, 10*ms)
	w.session(eb, h1, 30*ms)
	w.books[ea].Ask(eb, []Ask{{Hub: h1}})
	w.settle()
	if n := len(w.books[h1].Forwards()); n != 0 {
		t.Fatalf("%d forwards", n)
	}
	w.books[h1].SetAllowed(w.now, yes)
	w.settle()
	w.connected(ea, eb, h1)
	w.books[eb].SetAllowed(w.now, no)
	if n := len(w.books[eb].Forwards()); n != 0 {
		t.Errorf("%d labels for us from nobody", n)
	}
	w.books[h1].SetAllowed(w.now, no)
	if n := len(w.books[h1].Forwards()); n != 0 {
		t.Errorf("%d forwards", n)
	}
}

func TestHostileLabels(t *testing.T) {
	now := time.Unix(1, 0)
	yes := func(key.Public, key.Public) bool { return true }
	b, _ := New(Config{Self: h1})
	b.SetRelaying(true)
	b.SetAllowed(now, yes)
	b.SetSessions(now, []Session{{h2, true, ms}, {h3, true, ms}, {ea, false, ms}, {eb, false, ms}})
	b.Wanted(now, ea, false, []Want{{Peer: eb}})
	before := b.Forwards()
	var mine uint64
	for l := range before {
		mine = l
	}
	b.Told(now, h2, []Label{
		{Peer: ec, Label: mine},                          // one of ours
		{Peer: ec, Label: 7},                             // fine
		{Peer: ec, Label: 0}, {Peer: ec, Label: 1 << 56}, // no labels
		{Peer: h1, Label: 8}, {Peer: h2, Label: 9}, // us, itself
		{Peer: ec, Label: 10, Via: []key.Public{h3, h1}},    // through us: a loop
		{Peer: ec, Label: 11, Origin: h1},                   // we never asked as somebody
		{Peer: ec, Label: 12, Via: make([]key.Public, 1e5)}, // endless
	})
	b.Told(now, h3, []Label{{Peer: eb, Label: 7}})  // h2's
	b.Told(now, ea, []Label{{Peer: ec, Label: 13}}) // no hub
	want := Forward{From: h2, To: ec}
	after := b.Forwards()
	if d := cmp.Diff(want, after[7]); d != "" {
		t.Error(d)
	}
	if len(after) != len(before)+1 || after[mine] != before[mine] {
		t.Errorf("forwards %v, before %v", after, before)
	}
	if got := counter(b, "label_collision"); got < 2 {
		t.Errorf("%d collisions counted", got)
	}
	if got := counter(b, "bad_label"); got != 7 {
		t.Errorf("%d bad labels counted", got)
	}
}

func TestBounds(t *testing.T) {
	now := time.Unix(1, 0)
	b, _ := New(Config{Self: h1})
	b.SetRelaying(true)
	b.SetAllowed(now, func(key.Public, key.Public) bool { return true })
	peer := func(i, j int) key.Public { return key.Public{0x80, byte(i), byte(j >> 8), byte(j)} }
	sessions := []Session{{ea, false, ms}}
	var wants []Want
	for j := range 2 * MaxLabels {
		sessions = append(sessions, Session{peer(0, j), false, ms})
		wants = append(wants, Want{Peer: peer(0, j)})
	}
	b.SetSessions(now, sessions)
	b.Wanted(now, ea, false, wants)
	if n := len(b.circuits); n != MaxLabels {
		t.Errorf("%d circuits, want %d", n, MaxLabels)
	}
	// Others at the same hub are not touched by that.
	b.Wanted(now, peer(0, 2000), false, []Want{{Peer: peer(0, 2001)}})
	if n := len(b.circuits); n != MaxLabels+1 {
		t.Errorf("%d circuits, want %d", n, MaxLabels+1)
	}
	_, labels := b.Tell(ea)
	if len(labels) != MaxLabels {
		t.Errorf("%d labels told", len(labels))
	}
	// A peer that wants others each time cannot pile up labels.
	b.Wanted(now, ea, false, []Want{{Peer: peer(0, 1500)}})
	if n := len(b.at[ea]); n > MaxLabels {
		t.Errorf("%d labels of one peer", n)
	}
}

// An unchanged cost is not told anew, a changed one is.
func TestCostsAreTold(t *testing.T) {
	w := newWorld(t, 1, []key.Public{h1}, []key.Public{ea, eb})
	w.session(ea, h1, 10*ms)
	w.session(eb, h1, 30*ms)
	w.books[ea].Ask(eb, []Ask{{Hub: h1}})
	w.settle()
	w.sessions[[2]key.Public{h1, eb}] = 33 * ms
	w.setSessions(h1)
	if c := w.books[h1].Changed(); len(c) != 0 {
		t.Errorf("a cost that moved by a tenth is told to %d peers", len(c))
	}
	w.sessions[[2]key.Public{h1, eb}] = 60 * ms
	w.setSessions(h1)
	w.settle()
	if r := w.connected(ea, eb, h1); r.Cost != 70*ms {
		t.Errorf("cost %v, want 70ms", r.Cost)
	}
}

// BenchmarkRepeat is a hub that hears again what a peer wants.
func BenchmarkRepeat(b *testing.B) {
	now := time.Unix(1, 0)
	h, _ := New(Config{Self: h1})
	h.SetRelaying(true)
	h.SetAllowed(now, func(key.Public, key.Public) bool { return true })
	sessions := []Session{{ea, false, ms}, {h2, true, ms}, {h3, true, ms}}
	var wants []Want
	for i := range 100 {
		p := key.Public{0x80, byte(i)}
		sessions = append(sessions, Session{p, false, ms})
		wants = append(wants, Want{Peer: p})
	}
	h.SetSessions(now, sessions)
	b.ReportAllocs()
	for b.Loop() {
		h.Wanted(now, ea, false, wants)
	}
}
