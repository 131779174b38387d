package vxlan

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxLearned = 1024
	// maxAge is how long a learned MAC is believed, as in Raven's devices.
	maxAge = 300 * time.Second
	// refreshAge is when a frame renews its entry: sooner would take the write
	// lock for nothing.
	refreshAge = 30 * time.Second
	// sweepEvery spaces the searches for room in a full table, so that a VTEP
	// that makes up MACs does not cost one per frame.
	sweepEvery = time.Second
)

// fdb holds the MACs that were learned from frames: stations behind a VTEP that
// the static table (vtepTable.macs) does not name. The zero value is ready.
type fdb struct {
	mu    sync.RWMutex
	m     map[MAC]learned
	swept time.Time

	full atomic.Uint64 // MACs not learned
}

type learned struct {
	vtep netip.Addr
	seen time.Time
}

// learn notes that mac was seen behind vtep at now. A MAC that moved is
// believed at once. It takes the write lock only for a new, moved or ageing
// entry.
func (f *fdb) learn(mac MAC, vtep netip.Addr, now time.Time) {
	f.mu.RLock()
	l, ok := f.m[mac]
	f.mu.RUnlock()
	if ok && l.vtep == vtep && now.Sub(l.seen) < refreshAge {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.m[mac]; !ok && !f.roomLocked(now) {
		f.full.Add(1)
		return
	}
	if f.m == nil {
		f.m = make(map[MAC]learned)
	}
	f.m[mac] = learned{vtep: vtep, seen: now}
}

func (f *fdb) roomLocked(now time.Time) bool {
	if len(f.m) < maxLearned {
		return true
	}
	if now.Sub(f.swept) < sweepEvery {
		return false
	}
	f.swept = now
	for mac, l := range f.m {
		if now.Sub(l.seen) >= maxAge {
			delete(f.m, mac)
		}
	}
	return len(f.m) < maxLearned
}

// lookup returns the VTEP behind which mac was seen last.
func (f *fdb) lookup(mac MAC, now time.Time) (netip.Addr, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	l, ok := f.m[mac]
	if !ok || now.Sub(l.seen) >= maxAge {
		return netip.Addr{}, false
	}
	return l.vtep, true
}

// keep forgets what was learned from VTEPs that are gone.
func (f *fdb) keep(t *vtepTable) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for mac, l := range f.m {
		if t.byAddr[l.vtep] == nil {
			delete(f.m, mac)
		}
	}
}

func (f *fdb) len() int {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return len(f.m)
}
