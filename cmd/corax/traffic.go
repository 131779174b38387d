package main

import (
	"net/netip"
	"sync"
	"time"

	"corax/dataplane"
	"corax/dataplane/key"
)

// ownTraffic is what the agent itself may send to one peer in a second without
// anybody wanting anything, in bytes: a ping, a keepalive, half a handshake.
const ownTraffic = 400

// recently is how long a direction counts as used after its last packet.
const recently = 3 * time.Second

// traffic notices to whom packets go and from whom they come, by sampling byte
// counters once a second. The zero value is ready; methods may be called from
// several goroutines.
type traffic struct {
	mu    sync.Mutex
	peers map[key.Public]*usage
	vteps map[netip.Addr]*usage
}

// usage is what was seen of one counterpart.
type usage struct {
	tx, rx         uint64
	starved        uint64
	lastTx, lastRx time.Time // last sample in which it grew by more than our own
	seen           bool      // in the present sample
}

// sample takes the counters of one moment.
func (t *traffic) sample(now time.Time, peers []dataplane.PeerStatus, vteps []dataplane.VTEPStatus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.peers == nil {
		t.peers, t.vteps = map[key.Public]*usage{}, map[netip.Addr]*usage{}
	}
	for _, p := range peers {
		note(t.peers, p.PublicKey, now, p.TxBytes, p.RxBytes)
		t.peers[p.PublicKey].starve(now, p.Starved)
	}
	for _, v := range vteps {
		note(t.vteps, v.Addr, now, v.TxBytes, v.RxBytes)
	}
	forget(t.peers)
	forget(t.vteps)
}

func note[K comparable](m map[K]*usage, k K, now time.Time, tx, rx uint64) {
	u := m[k]
	if u == nil {
		u = &usage{tx: tx, rx: rx}
		m[k] = u
	}
	if tx > u.tx+ownTraffic {
		u.lastTx = now
	}
	if rx > u.rx {
		u.lastRx = now
	}
	u.tx, u.rx, u.seen = tx, rx, true
}

// starve notes packets that could not be sent: they are wanted all the same.
func (u *usage) starve(now time.Time, starved uint64) {
	if starved > u.starved {
		u.lastTx = now
	}
	u.starved = starved
}

func forget[K comparable](m map[K]*usage) {
	for k, u := range m {
		if !u.seen {
			delete(m, k)
		}
		u.seen = false
	}
}

// peer returns when somebody last wanted to send packets to a peer, whether they
// went or not, and when any last came; zero: never.
func (t *traffic) peer(k key.Public) (tx, rx time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if u := t.peers[k]; u != nil {
		return u.lastTx, u.lastRx
	}
	return time.Time{}, time.Time{}
}

// vtep is peer for a VTEP.
func (t *traffic) vtep(a netip.Addr) (tx, rx time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if u := t.vteps[a]; u != nil {
		return u.lastTx, u.lastRx
	}
	return time.Time{}, time.Time{}
}
