package wg

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"corax/dataplane/key"
)

// indicesPerPeer bounds the session indices remembered per peer. wireguard-go
// accepts data for at most 180 s after a handshake, attempts one every 5 s, and
// so never needs more than 36 of the last ones.
const indicesPerPeer = 64

// ring holds the last session indices that were given out for a peer.
type ring struct {
	at   [indicesPerPeer]uint32
	n    int // given out ever
	next int
}

// table finds peers: by key, by session index, by path. It is safe for
// concurrent use.
type table struct {
	// gen changes with every change of an index or a path, so that readers
	// may keep the answer of their last lookup.
	gen atomic.Uint64

	mu      sync.RWMutex
	byKey   map[key.Public]*peer
	byIndex map[uint32]*peer // nil value: a session of an unknown peer
	byPath  map[spot]*peer   // direct paths
	// strangers holds the indices of peers that only the user API knows.
	strangers ring
}

func newTable() *table {
	return &table{
		byKey:   make(map[key.Public]*peer),
		byIndex: make(map[uint32]*peer),
		byPath:  make(map[spot]*peer),
	}
}

func (t *table) get(k key.Public) *peer {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byKey[k]
}

// add returns the peer with key k, and makes it first when there is none.
func (t *table) add(k key.Public) *peer {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.byKey[k]
	if p == nil {
		p = &peer{key: k, mac1: newMACKey(k), table: t}
		t.byKey[k] = p
	}
	return p
}

func (t *table) remove(p *peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byKey, p.key)
	t.dropPathLocked(p)
	p.path.Store(nil)
	for i := range min(p.indices.n, indicesPerPeer) {
		t.dropIndexLocked(p.indices.at[i], p)
	}
	t.gen.Add(1)
}

func (t *table) all() []*peer {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]*peer, 0, len(t.byKey))
	for _, p := range t.byKey {
		out = append(out, p)
	}
	return out
}

// note remembers that the session index i is p's; p nil is a stranger.
func (t *table) note(p *peer, i uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old, ok := t.byIndex[i]; ok && old == p {
		return // sent once more
	}
	r := &t.strangers
	if p != nil {
		if t.byKey[p.key] != p {
			return // removed meanwhile
		}
		r = &p.indices
	}
	if r.n >= indicesPerPeer {
		t.dropIndexLocked(r.at[r.next], p)
	}
	r.at[r.next] = i
	r.next = (r.next + 1) % indicesPerPeer
	r.n++
	t.byIndex[i] = p
	t.gen.Add(1)
}

func (t *table) dropIndexLocked(i uint32, p *peer) {
	if old, ok := t.byIndex[i]; ok && old == p {
		delete(t.byIndex, i)
	}
}

// session returns the peer of a session index; ok false: there is no such
// session; nil and true: one of a stranger.
func (t *table) session(i uint32) (p *peer, ok bool) {
	t.mu.RLock()
	p, ok = t.byIndex[i]
	t.mu.RUnlock()
	return p, ok
}

// at returns the peer whose path is direct and leads to s, if any.
func (t *table) at(s spot) *peer {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byPath[s]
}

// setPath makes w the path of p; nil takes the path away. When from is given
// and the path is no longer from, it does nothing and returns false.
func (t *table) setPath(p *peer, w *path, from **path) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if from != nil && *from != p.path.Load() || t.byKey[p.key] != p {
		return false
	}
	t.dropPathLocked(p)
	p.path.Store(w)
	p.spare.Store(nil)
	p.from.Store(nil)
	if w != nil && w.direct() {
		t.byPath[w.spot()] = p
	}
	t.gen.Add(1)
	return true
}

// cameBy notes that p proved to send by o, while w is its path.
func (t *table) cameBy(p *peer, o *way, w *path) {
	from := p.from.Load()
	if from != nil && from.same(o) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case p.path.Load() != w:
	case o.via != nil || w.same(o): // a relay frame comes in no other
		p.from.Store(nil)
	default:
		p.from.Store(&way{to: o.to, socket: o.socket, stream: o.stream})
	}
}

func (t *table) dropPathLocked(p *peer) {
	if w := p.path.Load(); w != nil && w.direct() && t.byPath[w.spot()] == p {
		delete(t.byPath, w.spot())
	}
}

// behind returns the peers that p relays to.
func (t *table) behind(p *peer) []*peer {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var out []*peer
	for _, q := range t.byKey {
		if w := q.path.Load(); w != nil && w.via == p {
			out = append(out, q)
		}
	}
	return out
}

// clearLocal lets the kernel choose our address for p's path.
func (t *table) clearLocal(p *peer) {
	old := p.path.Load()
	if old == nil || !old.local.IsValid() {
		return
	}
	w := old.way
	w.local = netip.Addr{}
	t.setPath(p, newPath(w, old.pinned, old.heard.Load()), &old)
}

// identify says to which peer a message of ours goes that is sent to a source
// nobody could name yet: by the mac1 of a handshake message, by the receiver
// index of a data message. It is rare, so it may look at every peer.
func (t *table) identify(msg []byte, hint spot) *peer {
	kind := Classify(msg)
	is := func(p *peer) bool {
		switch kind {
		case KindInitiation, KindResponse:
			return p.mac1.check(msg)
		case KindData:
			return p.remote.Load() == index(msg, offReceiver)
		default:
			return false
		}
	}
	if p := t.at(hint); p != nil && is(p) {
		return p
	}
	for _, p := range t.all() {
		if is(p) {
			return p
		}
	}
	return nil
}
