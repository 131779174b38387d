package relay

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"time"

	"corax/dataplane/key"
)

// Config says whose book it is.
type Config struct {
	Self key.Public
	Rand func() uint64 // nil: crypto/rand. Labels are secrets of their link.
}

// Book is the label book of one node. It is not safe for concurrent use. After
// each change, [Book.Changed] names those who must hear something else, and
// [Book.Version] tells whether the forwards are others.
type Book struct {
	self     key.Public
	rand     func() uint64
	relaying bool
	allowed  func(asking, peer key.Public) bool

	sessions map[key.Public]Session
	hubs     []Session                       // of sessions
	links    map[[2]key.Public]time.Duration // hub, peer

	askers   map[key.Public]*asker
	circuits map[circuitKey]*circuit
	at       map[key.Public]map[*circuit]bool // by neighbour
	own      map[uint64]*circuit              // labels that we gave

	asked    map[key.Public][]Ask   // by peer: what we want ourselves
	told     map[key.Public]*told   // by hub
	terminal map[uint64]terminal    // labels for us
	relays   map[key.Public][]Relay // by peer; nil: to be built

	round    uint64 // counts the messages to Wanted
	changed  map[key.Public]bool
	version  uint64
	forwards map[uint64]Forward // nil: to be built
	next     time.Time          // nothing lapses before; zero: nothing does
	counters [reasons]uint64
}

// New returns an empty book, which does not relay and allows nobody.
func New(cfg Config) (*Book, error) {
	if cfg.Self.IsZero() {
		return nil, errors.New("relay: no key of our own")
	}
	if cfg.Rand == nil {
		cfg.Rand = secret
	}
	return &Book{
		self:     cfg.Self,
		rand:     cfg.Rand,
		allowed:  func(key.Public, key.Public) bool { return false },
		sessions: make(map[key.Public]Session),
		links:    make(map[[2]key.Public]time.Duration),
		askers:   make(map[key.Public]*asker),
		circuits: make(map[circuitKey]*circuit),
		at:       make(map[key.Public]map[*circuit]bool),
		own:      make(map[uint64]*circuit),
		asked:    make(map[key.Public][]Ask),
		told:     make(map[key.Public]*told),
		terminal: make(map[uint64]terminal),
		changed:  make(map[key.Public]bool),
	}, nil
}

func secret() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: see its documentation
	return binary.BigEndian.Uint64(b[:])
}

// SetRelaying says whether we relay for others; turning it off ends every
// circuit at once.
func (b *Book) SetRelaying(on bool) {
	b.relaying = on
	if on {
		return
	}
	clear(b.askers)
	for _, c := range b.all() {
		b.remove(c)
	}
}

// SetAllowed says who may be relayed: f reports whether the plan names both
// peers and lets asking reach peer. What is no longer allowed ends at once. Call
// it again when the plan changed. f must not call the book.
func (b *Book) SetAllowed(now time.Time, f func(asking, peer key.Public) bool) {
	b.allowed = f
	for _, c := range b.all() {
		if !b.either(c.near, c.far) {
			b.remove(c)
		}
	}
	b.retell()
	b.rerouteAll(now)
}

// either: who was asked for may answer.
func (b *Book) either(x, y key.Public) bool { return b.allowed(x, y) || b.allowed(y, x) }

// SetSessions says whom we reach ourselves. Those that are missing are gone, as
// with Gone. Call it on changes, and about once a second with new costs.
func (b *Book) SetSessions(now time.Time, list []Session) {
	next := make(map[key.Public]Session, len(list))
	for _, s := range list {
		if s.Peer != b.self && !s.Peer.IsZero() {
			next[s.Peer] = s
		}
	}
	news := len(next) != len(b.sessions)
	for k, old := range b.sessions {
		s, ok := next[k]
		if !ok || old.Hub && !s.Hub {
			b.end(k)
		}
		news = news || old.Hub != s.Hub || moved(micros(old.Cost), micros(s.Cost))
	}
	b.setSessions(next)
	for _, c := range b.circuits {
		b.price(c)
	}
	b.retell()
	if news {
		b.rerouteAll(now)
	}
}

func (b *Book) setSessions(m map[key.Public]Session) {
	b.sessions = m
	b.hubs = nil
	for _, s := range m {
		if s.Hub {
			b.hubs = append(b.hubs, s)
		}
	}
	b.relays = nil
}

// SetLinks says what the other hubs reach.
func (b *Book) SetLinks(now time.Time, list []Link) {
	next := make(map[[2]key.Public]time.Duration, len(list))
	news := false
	for _, l := range list {
		ends := [2]key.Public{l.Hub, l.To}
		old, ok := b.links[ends]
		next[ends] = max(l.Cost, 0)
		news = news || !ok || moved(micros(old), micros(l.Cost))
	}
	news = news || len(next) != len(b.links)
	b.links = next
	if news {
		b.rerouteAll(now)
	}
}

// Gone ends everything that needs the session with k, at once. What k wants is
// kept for its time, and served again when the session is back; what k told is
// not: tell it again then.
func (b *Book) Gone(now time.Time, k key.Public) {
	next := maps.Clone(b.sessions)
	delete(next, k)
	b.setSessions(next)
	b.end(k)
	b.rerouteAll(now)
}

func (b *Book) end(k key.Public) {
	for _, c := range b.of(k) {
		b.remove(c)
	}
	b.forget(k)
}

// Ask says where we want peer ourselves; at none ends it.
func (b *Book) Ask(peer key.Public, at []Ask) {
	if slices.Equal(b.asked[peer], at) {
		return
	}
	for _, a := range slices.Concat(b.asked[peer], at) {
		b.changed[a.Hub] = true
	}
	if len(at) == 0 {
		delete(b.asked, peer)
		return
	}
	b.asked[peer] = slices.Clone(at)
}

// Changed returns the peers for which Tell has something else to say than when
// Changed was last called, in the order of their keys.
func (b *Book) Changed() []key.Public {
	out := sorted(b.changed)
	clear(b.changed)
	return out
}

// Version changes with the forwards.
func (b *Book) Version() uint64 { return b.version }

// Forwards returns what to do with frames, by label. It is not changed later.
func (b *Book) Forwards() map[uint64]Forward {
	if b.forwards != nil {
		return b.forwards
	}
	f := make(map[uint64]Forward, len(b.own)+len(b.terminal))
	for label, t := range b.terminal {
		f[label] = Forward{From: t.hub, To: t.peer}
	}
	for _, c := range b.circuits {
		if c.complete() {
			f[c.nearIn] = Forward{From: c.near, To: c.onward(), Out: c.farOut()}
			f[c.farIn] = Forward{From: c.onward(), To: c.near, Out: c.nearIn}
		}
	}
	b.forwards = f
	return f
}

func (b *Book) dirty() {
	b.forwards = nil
	b.version++
}

// Counters returns what was refused.
func (b *Book) Counters() []Counter {
	out := make([]Counter, 0, reasons)
	for r := range reasons {
		out = append(out, Counter{r.String(), b.counters[r]})
	}
	return out
}

// Deadline returns when to call Expire; zero: not until something happens.
func (b *Book) Deadline() time.Time { return b.next }

// Expire ends what nobody asked for or told during the last 60 s.
func (b *Book) Expire(now time.Time) {
	if b.next.IsZero() || now.Before(b.next) {
		return
	}
	b.next = time.Time{}
	for k, a := range b.askers {
		if !now.Before(a.until) {
			delete(b.askers, k)
			continue
		}
		b.lapse(a.until)
	}
	for _, c := range b.all() {
		b.expire(now, c)
	}
	for hub, t := range b.told {
		if !now.Before(t.until) {
			b.forget(hub)
			continue
		}
		b.lapse(t.until)
	}
}

// lapse notes that something lapses at t.
func (b *Book) lapse(t time.Time) {
	if b.next.IsZero() || t.Before(b.next) {
		b.next = t
	}
}

func compareKeys(x, y key.Public) int { return slices.Compare(x[:], y[:]) }
