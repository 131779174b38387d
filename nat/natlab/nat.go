package natlab

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// Behaviour is RFC 4787's word for what a mapping (section 4.1) or a filter
// (section 5) depends on.
type Behaviour uint8

// The behaviours of RFC 4787.
const (
	EndpointIndependent Behaviour = iota + 1
	AddressDependent
	AddressAndPortDependent
)

// Ports says how a NAT chooses the external port of a new mapping.
type Ports uint8

// Ports of new mappings.
const (
	Preserve   Ports = iota // the internal port; a random one where that is taken
	Sequential              // the one after the last, by Step
	Random                  // any from 1024 up
)

// NAT describes an address and port translator. Its zero value is not useful:
// set Mapping and Filtering, or take one of the ready ones ([FullCone] and so on).
type NAT struct {
	Mapping, Filtering Behaviour
	Ports              Ports
	Step               int // for Sequential; 0: 1
	// Conntrack shares an external port between mappings as long as the
	// remote endpoints differ, as Linux does: Mapping AddressAndPortDependent
	// with Preserve then looks endpoint independent, until two flows clash.
	Conntrack bool
	// InputOpen, with Conntrack: an unsolicited packet is accepted by the
	// router itself, and holds that external port against a later flow from
	// inside to the packet's sender.
	InputOpen bool
	// Hairpin: inside hosts reach each other by their external addresses.
	Hairpin bool
	// How long a flow lives after its last packet, as long as nothing came
	// back (0: 30 s) and then (0: 120 s).
	Unreplied, Replied time.Duration
}

// flowKey is an inside endpoint and whom it talks to.
type flowKey struct{ inside, remote netip.AddrPort }

// outerKey is an external port and who talks to it.
type outerKey struct {
	port   uint16
	remote netip.AddrPort
}

// mapping is an external port that an inside endpoint has. It lives as long as
// any flow that uses it.
type mapping struct {
	key     flowKey // with the parts of remote zeroed that it does not depend on
	port    uint16
	expires time.Time
	seen    map[netip.Addr]time.Time // who may send to it by address, until when
}

type flow struct {
	key     flowKey
	m       *mapping
	replied bool
	expires time.Time
}

// natTable is the state of a NAT. What has expired is as good as gone; a sweep
// frees its memory when there is much.
type natTable struct {
	cfg      NAT
	rand     *rand.Rand
	flows    map[flowKey]*flow
	outer    map[outerKey]*flow
	mappings map[flowKey]*mapping
	ports    map[uint16][]*mapping
	local    map[outerKey]time.Time // accepted by the router itself, with expiry
	next     int
	sweepAt  int
}

const (
	defaultUnreplied = 30 * time.Second
	defaultReplied   = 120 * time.Second
	minSweep         = 4096
	firstSequential  = 20000
)

func newNATTable(cfg NAT, r *rand.Rand) *natTable {
	if cfg.Unreplied == 0 {
		cfg.Unreplied = defaultUnreplied
	}
	if cfg.Replied == 0 {
		cfg.Replied = defaultReplied
	}
	if cfg.Step == 0 {
		cfg.Step = 1
	}
	t := &natTable{cfg: cfg, rand: r}
	t.flush()
	return t
}

// flush forgets everything, as a reboot does.
func (t *natTable) flush() {
	t.flows = make(map[flowKey]*flow)
	t.outer = make(map[outerKey]*flow)
	t.mappings = make(map[flowKey]*mapping)
	t.ports = make(map[uint16][]*mapping)
	t.local = make(map[outerKey]time.Time)
	t.next = firstSequential + t.rand.IntN(30000)
	t.sweepAt = minSweep
}

// out translates a packet from inside to remote: it returns the external port.
func (t *natTable) out(now time.Time, inside, remote netip.AddrPort) (uint16, bool) {
	f := t.flow(now, flowKey{inside, remote})
	if f == nil {
		m := t.mapping(now, inside, remote)
		if m == nil {
			return 0, false
		}
		f = t.open(m, remote)
	}
	t.refresh(now, f)
	return f.m.port, true
}

// in translates a packet from remote to an external port: it returns the
// inside endpoint, or why there is none.
func (t *natTable) in(now time.Time, remote netip.AddrPort, port uint16) (inside netip.AddrPort, refused string) {
	if f := t.outer[outerKey{port, remote}]; f != nil && now.Before(f.expires) {
		f.replied = true
		t.refresh(now, f)
		return f.key.inside, ""
	}
	if t.cfg.Conntrack && t.cfg.InputOpen {
		// The kernel confirms the entry when the packet reaches its own stack.
		t.local[outerKey{port, remote}] = now.Add(t.cfg.Unreplied)
		return netip.AddrPort{}, "nat: for the router itself"
	}
	found := false
	for _, m := range t.ports[port] {
		if !now.Before(m.expires) {
			continue
		}
		found = true
		if t.cfg.Filtering == EndpointIndependent || t.cfg.Filtering == AddressDependent && now.Before(m.seen[remote.Addr()]) {
			f := t.open(m, remote)
			f.replied = true
			t.refresh(now, f)
			return m.key.inside, ""
		}
	}
	if found {
		return netip.AddrPort{}, "nat: filtered"
	}
	return netip.AddrPort{}, "nat: no mapping"
}

// mapping returns the mapping that a new flow uses.
func (t *natTable) mapping(now time.Time, inside, remote netip.AddrPort) *mapping {
	key := flowKey{inside: inside}
	switch t.cfg.Mapping {
	case AddressDependent:
		key.remote = netip.AddrPortFrom(remote.Addr(), 0)
	case AddressAndPortDependent:
		key.remote = remote
	}
	m := t.mappings[key]
	if m != nil && now.Before(m.expires) {
		return m
	}
	port, ok := t.choose(now, inside.Port(), remote)
	if !ok {
		return nil
	}
	if m != nil {
		t.forget(m)
	}
	m = &mapping{key: key, port: port, seen: make(map[netip.Addr]time.Time)}
	t.mappings[key] = m
	t.ports[port] = append(t.ports[port], m)
	return m
}

// choose picks a free external port.
func (t *natTable) choose(now time.Time, internal uint16, remote netip.AddrPort) (uint16, bool) {
	if t.cfg.Ports == Preserve && t.free(now, internal, remote) {
		return internal, true
	}
	for range 1000 {
		port := uint16(1024 + t.rand.IntN(64512))
		if t.cfg.Ports == Sequential {
			port = uint16(t.next)
			if t.next += t.cfg.Step; t.next > 65535 || t.next < 1024 {
				t.next = firstSequential
			}
		}
		if t.free(now, port, remote) {
			return port, true
		}
	}
	return 0, false
}

func (t *natTable) free(now time.Time, port uint16, remote netip.AddrPort) bool {
	if t.cfg.Conntrack {
		key := outerKey{port, remote}
		f := t.outer[key]
		return !now.Before(t.local[key]) && (f == nil || !now.Before(f.expires))
	}
	return !slices.ContainsFunc(t.ports[port], func(m *mapping) bool { return now.Before(m.expires) })
}

func (t *natTable) open(m *mapping, remote netip.AddrPort) *flow {
	f := &flow{key: flowKey{m.key.inside, remote}, m: m}
	t.flows[f.key] = f
	t.outer[outerKey{m.port, remote}] = f
	return f
}

// refresh prolongs a flow, its mapping and what its filter admits.
func (t *natTable) refresh(now time.Time, f *flow) {
	life := t.cfg.Unreplied
	if f.replied {
		life = t.cfg.Replied
	}
	f.expires = now.Add(life)
	f.m.expires = later(f.m.expires, f.expires)
	if t.cfg.Filtering == AddressDependent {
		a := f.key.remote.Addr()
		f.m.seen[a] = later(f.m.seen[a], f.expires)
	}
	if len(t.flows)+len(t.local) > t.sweepAt {
		t.sweep(now)
		t.sweepAt = max(minSweep, 2*(len(t.flows)+len(t.local)))
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// flow returns the live flow.
func (t *natTable) flow(now time.Time, key flowKey) *flow {
	if f := t.flows[key]; f != nil && now.Before(f.expires) {
		return f
	}
	return nil
}

func (t *natTable) forget(m *mapping) {
	delete(t.mappings, m.key)
	left := slices.DeleteFunc(t.ports[m.port], func(have *mapping) bool { return have == m })
	if len(left) == 0 {
		delete(t.ports, m.port)
	} else {
		t.ports[m.port] = left
	}
}

func (t *natTable) sweep(now time.Time) {
	for k, f := range t.flows {
		if !now.Before(f.expires) {
			delete(t.flows, k)
		}
	}
	for k, f := range t.outer {
		if !now.Before(f.expires) {
			delete(t.outer, k)
		}
	}
	for _, m := range t.mappings {
		if !now.Before(m.expires) {
			t.forget(m)
		}
	}
	for k, until := range t.local {
		if !now.Before(until) {
			delete(t.local, k)
		}
	}
}
