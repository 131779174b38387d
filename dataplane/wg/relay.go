package wg

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"corax/dataplane"
	"corax/dataplane/key"
)

const maxLabel = 1<<56 - 1

// Forward says what becomes of the frames that carry one label.
//
// With Out they come from the peer From and go on to the peer To with label Out.
// Without it they are for us: the hub From relays what the peer To sent.
//
// Either way From must be reached where the frame came from: otherwise it is
// dropped.
type Forward struct {
	From, To key.Public
	Out      Label
}

// RelayStatus counts what was relayed from one peer to another. Drops are frames
// that were not.
type RelayStatus struct {
	From, To              key.Public
	Packets, Bytes, Drops uint64
}

// SetLabels makes labels the only labels, for relaying and for being reached
// over a relay. Labels of unknown peers work as soon as SetPeers brings the peer.
// The map is not kept.
func (d *Device) SetLabels(labels map[Label]Forward) { d.bind.relays.set(labels, d.table) }

// Relayed returns the counters of every pair that has a label, in no order. A
// pair whose last label goes starts anew.
func (d *Device) Relayed() []RelayStatus { return d.bind.relays.status() }

type pairKey struct{ from, to key.Public }

// relayPair counts the frames of all labels from one peer to another.
type relayPair struct {
	pairKey
	packets, bytes, drops atomic.Uint64

	// For fair: the bytes that came for the pair ever, and those at the start
	// of the window.
	offered, base atomic.Uint64
}

// label is a Forward with its peers found. It is immutable.
type label struct {
	from, to *peer
	out      Label      // zero: for us
	pair     *relayPair // nil: for us
}

type labelTable map[Label]*label

// relays owns the labels. The receive loops read table alone.
type relays struct {
	table atomic.Pointer[labelTable] // nil: none

	mu    sync.Mutex // guards what follows
	want  map[Label]Forward
	pairs map[pairKey]*relayPair
	// what pairs that are gone had counted
	packets, bytes uint64
}

func (r *relays) set(labels map[Label]Forward, t *table) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.want = make(map[Label]Forward, len(labels))
	for l, f := range labels {
		if l != 0 && l <= maxLabel && f.Out <= maxLabel {
			r.want[l] = f
		}
	}
	r.buildLocked(t)
}

// rebuild finds the peers anew, after some came or went.
func (r *relays) rebuild(t *table) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.want) > 0 {
		r.buildLocked(t)
	}
}

func (r *relays) buildLocked(t *table) {
	next := make(labelTable, len(r.want))
	pairs := make(map[pairKey]*relayPair)
	for l, f := range r.want {
		x := &label{from: t.get(f.From), to: t.get(f.To), out: f.Out}
		if x.from == nil || x.to == nil || x.from == x.to {
			continue
		}
		if f.Out != 0 {
			k := pairKey{f.From, f.To}
			if pairs[k] == nil {
				pairs[k] = r.pairs[k]
			}
			if pairs[k] == nil {
				pairs[k] = &relayPair{pairKey: k}
			}
			x.pair = pairs[k]
		}
		next[l] = x
	}
	for k, p := range r.pairs {
		if pairs[k] == nil {
			r.packets += p.packets.Load()
			r.bytes += p.bytes.Load()
		}
	}
	r.pairs = pairs
	r.table.Store(&next)
	t.gen.Add(1) // a label may name another origin now
}

func (r *relays) status() []RelayStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]RelayStatus, 0, len(r.pairs))
	for _, p := range r.pairs {
		out = append(out, RelayStatus{
			From: p.from, To: p.to, Packets: p.packets.Load(), Bytes: p.bytes.Load(), Drops: p.drops.Load(),
		})
	}
	return out
}

func (r *relays) counters() []dataplane.Counter {
	r.mu.Lock()
	defer r.mu.Unlock()
	packets, bytes := r.packets, r.bytes
	for _, p := range r.pairs {
		packets += p.packets.Load()
		bytes += p.bytes.Load()
	}
	return []dataplane.Counter{
		{Name: "wg_relay_packets_total", Value: packets}, {Name: "wg_relay_bytes_total", Value: bytes},
	}
}

// all returns the pairs in a slice that buf may provide.
func (r *relays) all(buf []*relayPair) []*relayPair {
	r.mu.Lock()
	defer r.mu.Unlock()
	buf = buf[:0]
	for _, p := range r.pairs {
		buf = append(buf, p)
	}
	return buf
}

// frameLabel returns the label of a relay frame.
func frameLabel(frame []byte) Label { return Label(binary.BigEndian.Uint64(frame) & maxLabel) }

// putLabel writes the header of a relay frame.
func putLabel(frame []byte, l Label) {
	binary.BigEndian.PutUint64(frame, uint64(relayByte)<<56|uint64(l))
}
