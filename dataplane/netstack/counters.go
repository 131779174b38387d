package netstack

import (
	"sync/atomic"

	"corax/dataplane"
)

// counters are our own; gVisor keeps the others.
type counters struct {
	rx, tx                     atomic.Uint64
	notIPv6, malformed, closed atomic.Uint64
}

// Counters returns the counters of the stack.
func (s *Stack) Counters() []dataplane.Counter {
	const drop = "netstack_drop_total"
	st := s.stack.Stats()
	return []dataplane.Counter{
		{Name: "netstack_rx_packets_total", Value: s.count.rx.Load()},
		{Name: "netstack_tx_packets_total", Value: s.count.tx.Load()},
		{Name: "netstack_tcp_retransmits_total", Value: st.TCP.Retransmits.Value()},
		{Name: drop, Reason: "not_ipv6", Value: s.count.notIPv6.Load()},
		{Name: drop, Reason: "malformed", Value: s.count.malformed.Load() + st.IP.MalformedPacketsReceived.Value()},
		{Name: drop, Reason: "closed", Value: s.count.closed.Load()},
		{Name: drop, Reason: "queue_full", Value: s.link.full.Load()},
		{Name: drop, Reason: "not_ours", Value: st.IP.InvalidDestinationAddressesReceived.Value()},
		{Name: drop, Reason: "bad_checksum", Value: st.TCP.ChecksumErrors.Value() + st.UDP.ChecksumErrors.Value()},
	}
}
