package wg

import (
	"sync"
	"testing"
)

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

// TestInitiationCountsOnce: wireguard-go tells of a replay twice, and counts of
// it are one per message, whoever speaks first.
func TestInitiationCountsOnce(t *testing.T) {
	var d drops
	log := newLogger(nil, &d, newWindow(Bounds{}.whole()))
	const replay = "%v - ConsumeMessageInitiation: handshake replay @ %v"
	const flood = "%v - ConsumeMessageInitiation: handshake flood"
	const invalid = "Received invalid initiation message from %s"
	var wg sync.WaitGroup
	for range 4 { // handshake workers
		wg.Go(func() {
			for range 1000 {
				log.Verbosef(replay)
				log.Verbosef(invalid)
				log.Verbosef(invalid)
				log.Verbosef(flood)
				log.Verbosef(invalid)
			}
		})
	}
	wg.Wait()
	for why, want := range map[drop]uint64{dropReplay: 4000, dropFlood: 4000, dropInitiation: 4000} {
		if got := d.n[why].Load(); got != want {
			t.Errorf("%s: %d, want %d", why, got, want)
		}
	}
}
