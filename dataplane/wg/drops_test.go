package wg

import "testing"

func TestDropNames(t *testing.T) {
	seen := make(map[string]bool)
	for _, c := range new(drops).list() {
		if c.Name != "wg_drop_total" || c.Reason == "" || seen[c.Reason] {
			t.Errorf("counter %+v has no name of its own", c)
		}
		seen[c.Reason] = true
	}
	if len(seen) != int(dropCount) {
		t.Errorf("%d reasons, want %d", len(seen), dropCount)
	}
}
