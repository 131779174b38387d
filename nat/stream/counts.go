package stream

import "sync/atomic"

// A Counter is one metric of this package; its fields are those of every
// counter of the agent.
type Counter struct {
	Name   string // the metric's name without "corax_", for example "nat_stream_drop_total"
	Reason string // tells counters of one name apart; may be empty
	Value  uint64
}

// Why a datagram was not sent, or what was read means nothing.
type dropReason int

const (
	dropQueueFull dropReason = iota // the oldest, for a newer one
	dropTooOld
	dropTooBig
	dropEmpty
	dropClosed
	dropReasons
)

var dropNames = [dropReasons]string{"queue_full", "too_old", "too_big", "empty", "closed"}

// Why a connection to a server became no stream.
type refusal int

const (
	refuseUnknownKey refusal = iota
	refuseBadMAC
	refuseTimeout
	refuseHandshake // no TLS, or ended within it
	refuseSource    // too many connections or attempts of one address
	refuseRate      // too many attempts of all
	refuseFull      // too many streams
	refuseEvicted   // a handshake that took long, for a newer one
	refuseAllow     // an address outside the allow list
	refusals
)

var refusalNames = [refusals]string{"unknown_key", "bad_mac", "timeout", "handshake", "source", "rate", "full", "evicted", "source_not_allowed"}

// Why a stream of a known peer ended.
type ending int

const (
	endReplaced ending = iota // by a newer one of the same peer
	endFrame                  // what is no frame
	endKnown                  // the peer is none any more
	endAllow                  // its address is outside the allow list now
	endings
)

var endingNames = [endings]string{"replaced", "bad_frame", "unknown_key", "source_not_allowed"}

// Counts holds the counters of streams. The zero value is ready; one Counts may
// be shared by all streams of an agent and be read at any time.
type Counts struct {
	accepted     atomic.Uint64
	dialed       atomic.Uint64
	sent, got    atomic.Uint64 // datagrams
	sentB, gotB  atomic.Uint64
	acceptErrors atomic.Uint64
	drops        [dropReasons]atomic.Uint64
	refused      [refusals]atomic.Uint64
	ended        [endings]atomic.Uint64
}

// Counters returns the present values.
func (c *Counts) Counters() []Counter {
	list := []Counter{
		{"nat_stream_accepted_total", "", c.accepted.Load()},
		{"nat_stream_dialed_total", "", c.dialed.Load()},
		{"nat_stream_accept_errors_total", "", c.acceptErrors.Load()},
		{"nat_stream_tx_packets_total", "", c.sent.Load()},
		{"nat_stream_rx_packets_total", "", c.got.Load()},
		{"nat_stream_tx_bytes_total", "", c.sentB.Load()},
		{"nat_stream_rx_bytes_total", "", c.gotB.Load()},
	}
	for i, name := range dropNames {
		list = append(list, Counter{"nat_stream_drop_total", name, c.drops[i].Load()})
	}
	for i, name := range refusalNames {
		list = append(list, Counter{"nat_stream_refused_total", name, c.refused[i].Load()})
	}
	for i, name := range endingNames {
		list = append(list, Counter{"nat_stream_ended_total", name, c.ended[i].Load()})
	}
	return list
}
