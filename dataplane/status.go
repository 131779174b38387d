package dataplane

import (
	"net/netip"
	"time"

	"corax/dataplane/key"
)

// PeerStatus is a snapshot of one WireGuard peer.
type PeerStatus struct {
	PublicKey key.Public
	// Endpoint is the peer's address that packets go to now; zero when none is
	// known, or they go another way.
	Endpoint netip.AddrPort
	// Via is the hub that relays to the peer; zero when none does.
	Via key.Public
	// Stream says that packets go over a TLS stream, to the peer or to Via.
	Stream bool
	// Proven is when a packet that authenticated last came the way that packets
	// go now; zero when none did since the agent started.
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
