package dataplane

import (
	"net/netip"
	"time"

	"corax/dataplane/key"
)

// PeerStatus is a snapshot of one WireGuard peer.
type PeerStatus struct {
	PublicKey key.Public
	// Endpoint is the address packets go to now; zero when none is known.
	Endpoint netip.AddrPort
	// Proven is when a packet that authenticated last came from Endpoint;
	// zero when none did since the agent started.
	Proven        time.Time
	LastHandshake time.Time // zero: none since the agent started
	LastReceive   time.Time // zero: none since the agent started
	RxBytes       uint64
	TxBytes       uint64
	// Starved counts the packets that found no session with the peer, whether
	// they waited for one or were dropped. What went to overlay addresses is left
	// out: agents speak there, and what they want is no traffic.
	Starved uint64
}

// VTEPStatus is a snapshot of one VTEP.
type VTEPStatus struct {
	Addr        netip.Addr
	LastReceive time.Time // zero: nothing since the agent started
	RxBytes     uint64
	TxBytes     uint64
}
