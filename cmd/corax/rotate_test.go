package main

import (
	"testing"
	"time"

	"corax/control"
	"corax/dataplane"
	"corax/dataplane/key"
)

func TestRotationDue(t *testing.T) {
	next, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	k, old := next.Public(), key.Public{1}
	gateway := control.RoleGateway
	for _, tt := range []struct {
		name  string
		steps []struct {
			now  int
			plan control.Desired
			want bool
		}
	}{
		{"a node that is not listed", []struct {
			now  int
			plan control.Desired
			want bool
		}{{0, control.Desired{Role: control.RoleNode}, true}}},
		{"the object has the new key already", []struct {
			now  int
			plan control.Desired
			want bool
		}{{0, control.Desired{Role: gateway, Listed: k}, true}}},
		{"not published", []struct {
			now  int
			plan control.Desired
			want bool
		}{
			{0, control.Desired{Role: gateway, Listed: old}, false},
			{999, control.Desired{Role: gateway, Listed: old, Next: key.Public{2}}, false},
		}},
		{"published, taken back, published again", []struct {
			now  int
			plan control.Desired
			want bool
		}{
			{0, control.Desired{Role: gateway, Listed: old, Next: k}, false},
			{29, control.Desired{Role: gateway, Listed: old, Next: k}, false},
			{30, control.Desired{Role: gateway, Listed: old}, false},
			{31, control.Desired{Role: gateway, Listed: old, Next: k}, false},
			{60, control.Desired{Role: gateway, Listed: old, Next: k}, false},
			{61, control.Desired{Role: gateway, Listed: old, Next: k}, true},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := rotation{next: next}
			for _, s := range tt.steps {
				if got := r.due(time.Unix(1000+int64(s.now), 0), s.plan); got != s.want {
					t.Errorf("at %d: %t", s.now, got)
				}
			}
		})
	}
}

func TestHeardKeys(t *testing.T) {
	a := &agent{inbox: newInbox()}
	one, two, gone := key.Public{1}, key.Public{2}, key.Public{3}
	a.view.Store(&view{plan: control.Desired{Config: dataplane.Config{Peers: []dataplane.Peer{
		{Gateway: "g", Node: "n", PublicKey: one}, {Gateway: "g", Node: "n", PublicKey: two, Other: true},
	}}}})
	poked := func() bool {
		select {
		case <-a.inbox.pokes:
			return true
		default:
			return false
		}
	}
	a.heardKey(one)
	if poked() {
		t.Error("the key in use is news")
	}
	a.heardKey(gone)
	a.heardKey(two)
	if !poked() {
		t.Error("the other key is no news")
	}
	h := a.heard()
	if len(h) != 2 || !h[two].After(h[one]) {
		t.Errorf("heard %v", h)
	}
	if n := len(twins(a.view.Load().plan.Config.Peers)); n != 1 {
		t.Errorf("%d nodes with two keys", n)
	}
}
