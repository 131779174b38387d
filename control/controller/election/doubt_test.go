package election

import (
	"slices"
	"strings"
	"testing"

	"corax/control/api/v1beta1"
)

// TestDoubt has the active node a's Lease lapse, and others in each state.
func TestDoubt(t *testing.T) {
	for _, tt := range []struct {
		name     string
		fresh    string // whose Leases are fresh
		outlived string // of these, who renewed since
		leases   string // who has one; the others have none
		pinned   string
		active   []string
		doubtful bool
	}{
		{"cut off together", "b c", "", "a b c", "", []string{"a"}, true},
		{"a standby shows itself", "b c", "b", "a b c", "", []string{"b"}, false},
		{"another one does: who is silent is not elected", "b c", "c", "a b c", "", []string{"c"}, false},
		{"not even when it is the better one", "b c", "c", "a b c", "b", []string{"c"}, false},
		{"nobody could show anything", "", "", "a b c", "", []string{"a"}, false},
		{"who has no Lease never does", "c", "", "a c", "", []string{"b"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Domain{Endpoints: keyed("a b c")}
			for _, n := range []string{"a", "b", "c"} {
				d.Nodes = append(d.Nodes, Node{Name: n, Ready: true, Pinned: tt.pinned == "" || n == tt.pinned})
			}
			d.Standing = func(n string) Standing {
				switch {
				case !slices.Contains(strings.Fields(tt.leases), n):
					return Standing{}
				case slices.Contains(strings.Fields(tt.fresh), n):
					return Standing{State: Fresh}
				}
				return Standing{State: Lapsed}
			}
			d.Outlived = func(_, other string) bool { return slices.Contains(strings.Fields(tt.outlived), other) }
			list := d.Judge(v1beta1.TypeTunnel)
			if got := Elect([]string{"a"}, list, 1); !slices.Equal(got.Active, tt.active) {
				t.Errorf("active %v, want %v", got.Active, tt.active)
			}
			if list[0].Doubtful != tt.doubtful {
				t.Errorf("%+v", list[0])
			}
			// Who sat nowhere gets no seat while it is in doubt.
			if got := Elect(nil, list, 3); slices.Contains(got.Active, "a") {
				t.Errorf("a is elected: %v", got.Active)
			}
		})
	}
}
