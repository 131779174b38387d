package hello

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"corax/dataplane/key"
)

const (
	// Port is the UDP port of hello on every overlay address.
	Port = 4501
	// Heartbeat is how often everything is said again to an active peer.
	Heartbeat = 25 * time.Second
	// Lifetime is how long what was said counts: three heartbeats.
	Lifetime = 3 * Heartbeat

	coalesce = 10 * time.Millisecond
	jitter   = Heartbeat / 10
)

// Config says what an [Exchange] works with.
type Config struct {
	Log *slog.Logger     // nil: discard
	Now func() time.Time // nil: time.Now

	// Conn is bound to port 4501 of our overlay address. Run closes it.
	Conn net.PacketConn

	// Self is our own key: others name us too.
	Self key.Public

	// PeerOf returns the peer of an overlay address from which a datagram came.
	// It knows only peers whose source address WireGuard has authenticated.
	PeerOf func(overlay netip.Addr) (key.Public, bool)

	// Named returns the peer of an overlay address that a value names: any peer
	// of the plan. Nil means PeerOf.
	Named func(overlay netip.Addr) (key.Public, bool)

	// Reachable reports whether a datagram to the peer would get there now. To
	// others nothing is sent: call Resend when that changes. Nil means those
	// that are active.
	Reachable func(k key.Public) bool

	// Update is called after something that k says came, came again (at most
	// once a second and topic), or is gone. Read it with Of. Nil: nobody cares.
	//
	// PeerOf, Named, Reachable and Update are called from the two goroutines of
	// Run (Named and Update also from Renamed), without a lock, and must not
	// block. They may call the methods of the Exchange.
	Update func(k key.Public, t Topic)
}

// Exchange tells peers what they shall know, and keeps what they say. Its
// methods are safe for concurrent use.
type Exchange struct {
	cfg      Config
	log      *slog.Logger
	codec    *codec
	instance uint64
	counters counters
	kick     chan struct{} // the sender shall look at its queue again

	mu        sync.Mutex
	peers     map[key.Public]*peer
	queue     queue  // peers that have something to do, by time
	self      []byte // said to everybody
	claims    []byte // likewise
	sequence  uint64
	assembled int // bytes of parts that wait for others, of all peers
}

// New checks cfg. Nothing is sent before Run.
func New(cfg Config) (*Exchange, error) {
	if cfg.Conn == nil || cfg.PeerOf == nil || cfg.Self.IsZero() {
		return nil, errors.New("hello: Conn, PeerOf and Self are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Named == nil {
		cfg.Named = cfg.PeerOf
	}
	if cfg.Update == nil {
		cfg.Update = func(key.Public, Topic) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c, err := newCodec()
	if err != nil {
		return nil, fmt.Errorf("hello: %w", err)
	}
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, fmt.Errorf("hello: read random: %w", err)
	}
	return &Exchange{
		cfg:      cfg,
		log:      cfg.Log.With("component", "hello"),
		codec:    c,
		instance: max(binary.LittleEndian.Uint64(b[:]), 1),
		kick:     make(chan struct{}, 1),
		peers:    make(map[key.Public]*peer),
	}, nil
}

// Run sends and receives until ctx is done, then closes Conn, joins what it
// started and returns nil.
func (e *Exchange) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = e.cfg.Conn.Close() })
	var wg sync.WaitGroup
	wg.Go(func() { e.send(ctx) })
	err := e.receive(ctx)
	cancel()
	wg.Wait()
	if stop() { // never started, so nobody else closes it
		_ = e.cfg.Conn.Close()
	}
	return err
}

// SetSelf says who we are, to every peer.
func (e *Exchange) SetSelf(s Self) error {
	b, err := e.codec.self(s)
	if err != nil {
		return fmt.Errorf("hello: self: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.self = b
	for _, p := range e.peers {
		e.setLocked(p, TopicSelf, b)
	}
	return nil
}

// SetClaims says who carries the subnets of our domain, to every peer.
func (e *Exchange) SetClaims(v Claims) error {
	b, err := e.codec.claims(v)
	if err != nil {
		return fmt.Errorf("hello: claims: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.claims = b
	for _, p := range e.peers {
		e.setLocked(p, TopicClaims, b)
	}
	return nil
}

// SetCandidates says to k how it can reach us. As with the other setters, an
// equal value changes nothing, and a value out of bounds is refused.
func (e *Exchange) SetCandidates(k key.Public, v Candidates) error {
	b, err := e.codec.candidates(v)
	return e.set(k, TopicCandidates, b, err)
}

// SetRelay says to k what we want from it, and the labels that we give it.
func (e *Exchange) SetRelay(k key.Public, v Relay) error {
	b, err := e.codec.relay(v)
	return e.set(k, TopicRelay, b, err)
}

// SetCosts says to k which links we have.
func (e *Exchange) SetCosts(k key.Public, v Costs) error {
	b, err := e.codec.costs(v)
	return e.set(k, TopicCosts, b, err)
}

func (e *Exchange) set(k key.Public, t Topic, b []byte, err error) error {
	if err == nil && len(b) > maxParts(t)*maxPiece {
		err = errSize
	}
	if err != nil {
		return fmt.Errorf("hello: %s: %w", t, err)
	}
	if k.IsZero() || k == e.cfg.Self {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.setLocked(e.peerLocked(k), t, b)
	return nil
}

// SetActive says whether k hears everything every 25 s, also when nothing
// changes. Turning it on says everything at once.
func (e *Exchange) SetActive(k key.Public, on bool) {
	if k.IsZero() || k == e.cfg.Self {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	p, ok := e.peers[k]
	switch {
	case !ok && !on:
		return
	case !ok:
		p = e.peerLocked(k)
	}
	if on && !p.active {
		e.resendLocked(p)
	}
	p.active = on
	e.scheduleLocked(p)
}

// Resend says everything again to k: after a new session, or when it became
// reachable.
func (e *Exchange) Resend(k key.Public) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p, ok := e.peers[k]; ok {
		e.resendLocked(p)
	}
}

// Forget drops what we say to k and what it said, without an Update.
func (e *Exchange) Forget(k key.Public) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p, ok := e.peers[k]
	if !ok {
		return
	}
	e.dropLocked(p)
	e.queue.remove(p)
	delete(e.peers, k)
}

// Of returns what k says.
func (e *Exchange) Of(k key.Public) Heard {
	e.mu.Lock()
	defer e.mu.Unlock()
	p, ok := e.peers[k]
	if !ok {
		return Heard{}
	}
	return p.heard(e.cfg.Now())
}

// Renamed decodes again what names somebody whom Config.Named did not know: call
// it when the plan has new peers.
func (e *Exchange) Renamed() {
	e.mu.Lock()
	var again []*peer
	for _, p := range e.peers {
		if p.unnamed() {
			again = append(again, p)
		}
	}
	e.mu.Unlock()
	for _, p := range again {
		for _, t := range e.rename(p) {
			e.cfg.Update(p.key, t)
		}
	}
}

// peerLocked returns the peer k, made when needed.
func (e *Exchange) peerLocked(k key.Public) *peer {
	p, ok := e.peers[k]
	if !ok {
		p = newPeer(k)
		e.peers[k] = p
		if e.self != nil {
			e.setLocked(p, TopicSelf, e.self)
		}
		if e.claims != nil {
			e.setLocked(p, TopicClaims, e.claims)
		}
	}
	return p
}

func (e *Exchange) named(overlay netip.Addr) (key.Public, bool) {
	if overlay == e.cfg.Self.Overlay() {
		return e.cfg.Self, true
	}
	return e.cfg.Named(overlay)
}
