package hello

import (
	"sync/atomic"

	"corax/dataplane"
)

type counters struct {
	sent, sendFailed, held                           atomic.Uint64
	received, readFailed, restarts, expired          atomic.Uint64
	stranger, limited, tooBig, malformed, stale      atomic.Uint64
	incomplete, assemblyFull                         atomic.Uint64
	unknownTopic, unknownField, unknownName, refused atomic.Uint64
}

// Counters returns the counters. Malformed and unwanted messages are only seen
// here. It is safe for concurrent use.
func (e *Exchange) Counters() []dataplane.Counter {
	c := &e.counters
	const drop, entry = "hello_drop_total", "hello_entry_ignored_total"
	return []dataplane.Counter{
		{Name: "hello_sent_total", Value: c.sent.Load()},
		{Name: "hello_send_error_total", Value: c.sendFailed.Load()},
		{Name: "hello_held_back_total", Value: c.held.Load()},
		{Name: "hello_received_total", Value: c.received.Load()},
		{Name: "hello_read_error_total", Value: c.readFailed.Load()},
		{Name: "hello_peer_restart_total", Value: c.restarts.Load()},
		{Name: "hello_expired_total", Value: c.expired.Load()},
		{Name: drop, Reason: "stranger", Value: c.stranger.Load()},
		{Name: drop, Reason: "rate", Value: c.limited.Load()},
		{Name: drop, Reason: "too_big", Value: c.tooBig.Load()},
		{Name: drop, Reason: "malformed", Value: c.malformed.Load()},
		{Name: drop, Reason: "stale", Value: c.stale.Load()},
		{Name: drop, Reason: "incomplete", Value: c.incomplete.Load()},
		{Name: drop, Reason: "assembly_full", Value: c.assemblyFull.Load()},
		{Name: drop, Reason: "unknown_topic", Value: c.unknownTopic.Load()},
		{Name: entry, Reason: "unknown_field", Value: c.unknownField.Load()},
		{Name: entry, Reason: "unknown_name", Value: c.unknownName.Load()},
		{Name: entry, Reason: "bad_address", Value: c.refused.Load()},
	}
}
