package dataplane

import (
	"net/netip"
	"time"

	"corax/dataplane/key"
)

// Config is the desired state of one agent's dataplane: plain values, made by
// control.Plan, never changed after they are made. Every slice is sorted, so
// that equal states are equal values.
type Config struct {
	Self   Self
	Peers  []Peer      // WireGuard peers, by PublicKey; empty on a plain node
	VTEPs  []VTEP      // nodes reached by VXLAN, by Addr
	Routes []Route     // the fabric's table, by Prefix; at most one per prefix
	Host   []HostRoute // what the kernel sends into corax0, by Prefix
	// Forbidden holds what is never an address of a peer, sorted: the overlay
	// prefix and the subnets of pods. A probe to them would go into the tunnel,
	// or to a pod, because a peer said so.
	Forbidden []netip.Prefix
	// Allow restricts who may send to this hub; nil: nobody is kept out.
	Allow *Allow
}

// Self is what the dataplane knows of its own node.
type Self struct {
	Gateway string // name of the Gateway object; empty when in none
	Node    string
	NodeIP  netip.Addr // VXLAN underlay address
	Overlay netip.Addr
	Subnets []netip.Prefix // own pods
	// MTU is the inner MTU: of corax0, and what WireGuard is told. In bytes.
	MTU int
	// Tunnel says that this node opens the tunnel port: it is a gateway node
	// or a standby.
	Tunnel bool
	// Hub says that this node is a gateway node that others can reach first.
	Hub bool
	// Relay says that this node is a hub and relays for others.
	Relay bool
	// Cost is what the Gateway adds to the cost of paths over its hubs.
	Cost time.Duration
}

// Peer is one WireGuard peer: another gateway node or standby.
type Peer struct {
	Gateway   string
	Node      string
	PublicKey key.Public
	// Preshared is mixed into the handshake when it is not zero.
	Preshared key.Preshared
	// AllowedIPs are the overlay address of the peer, first, and the subnets
	// that it owns, sorted.
	AllowedIPs []netip.Prefix
	// Endpoint is where the peer can be reached first; zero when nobody knows:
	// then only the peer can start.
	Endpoint netip.AddrPort
	// EndpointHost is a DNS name to resolve for Endpoint when Endpoint has a
	// port and no valid address; empty otherwise.
	EndpointHost string
	EndpointPort uint16
	// Keepalive is the persistent keepalive interval; zero means none.
	Keepalive time.Duration
	// Hub says that the peer is a gateway node that can be reached first.
	Hub bool
	// Relay says that the peer is a hub and relays for others.
	Relay bool
	// TLSPort is the TCP port of the hub's TLS fallback; zero when the peer is
	// no hub.
	TLSPort uint16
	// Cost is what the peer's Gateway adds to the cost of paths over its hubs.
	Cost time.Duration
	// SameDomain says that the peer is in this node's own domain.
	SameDomain bool
	// Other says that this is the key that its node does not use at present, while
	// it changes its key: it is accepted, with its overlay address alone, and not
	// sent to first. Another peer of the same node carries the subnets.
	Other bool
}

// VTEP is a node of the same domain that speaks VXLAN with this one.
type VTEP struct {
	Node string
	Addr netip.Addr // underlay address: the node's IP
	// Sources are the inner sources accepted from it: for a plain node its own
	// subnets, for a gateway node the subnets of other domains.
	Sources []netip.Prefix
	// Overlay is the node's overlay address when its key is known; packets to
	// it then go to this VTEP. Other is that of its other key, while it changes
	// its key.
	Overlay, Other netip.Addr
}

// Via names what carries a route's packets.
type Via uint8

// The ways out of the fabric. The zero Via drops, so that a forgotten field
// cannot leak a packet.
const (
	ViaNone      Via = iota // drop, answered with ICMP unreachable
	ViaWireGuard            // to the peer that the allowed IPs name
	ViaVXLAN                // to the VTEP of the route
	ViaTUN                  // to this node's own pods
	ViaNetstack             // to the agent itself
)

// String returns the name as status and logs show it.
func (v Via) String() string {
	switch v {
	case ViaWireGuard:
		return "wireguard"
	case ViaVXLAN:
		return "vxlan"
	case ViaTUN:
		return "tun"
	case ViaNetstack:
		return "netstack"
	default:
		return "none"
	}
}

// Route is one entry of the fabric's table.
type Route struct {
	Prefix netip.Prefix
	Via    Via
	VTEP   netip.Addr // with ViaVXLAN: the next hop's underlay address
	Peer   key.Public // with ViaWireGuard: the owner, for status
	// MTU is the largest inner packet in bytes that this way carries; zero
	// means Self.MTU. For IPv6 the fabric never goes below 1280.
	MTU int
	// Carry is the largest packet that is carried although it exceeds MTU: its
	// sender is told of MTU, and until it obeys, WireGuard's datagram is fragmented
	// on its way. Zero means MTU. In bytes.
	Carry int
	// TCPMTU is the MTU that the MSS of TCP connections is clamped to, when it
	// is smaller than MTU; zero means MTU. In bytes.
	TCPMTU int
}

// HostRoute is one remote subnet that the kernel routes into corax0.
type HostRoute struct {
	Prefix netip.Prefix
	// MTU is the effective MTU of the whole known walk, in bytes.
	MTU int
}
