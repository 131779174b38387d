package path

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"corax/dataplane/key"
)

// Kind says how a Way reaches the peer.
type Kind uint8

// The kinds of ways.
const (
	None   Kind = iota // no way
	Direct             // UDP to the address To, from Socket
	Relay              // a relay frame with Label to the hub Hub
	Stream             // the peer itself over the TLS stream with number Stream
)

// String returns "none", "direct", "relay" or "stream".
func (k Kind) String() string { return name(k, "none", "direct", "relay", "stream") }

// Way is one way to a peer. It is comparable; the zero value is no way. Fields
// that do not belong to the Kind are zero.
type Way struct {
	Kind   Kind
	To     netip.AddrPort // Direct
	Socket uint32         // Direct: zero is the tunnel socket of the family
	Hub    key.Public     // Relay: the first hub
	Label  uint64         // Relay: 56 bits
	Stream uint64         // Stream: the owner's number of it
}

// String returns the way in words, for status and tests.
func (w Way) String() string {
	switch w.Kind {
	case Direct:
		if w.Socket != 0 {
			return fmt.Sprintf("direct %v socket %d", w.To, w.Socket)
		}
		return "direct " + w.To.String()
	case Relay:
		return fmt.Sprintf("relay %v label %014x", w.Hub, w.Label)
	case Stream:
		return fmt.Sprintf("stream %d", w.Stream)
	}
	return "none"
}

// CandidateKind says where a candidate comes from. The numbers are those of the
// hello.
type CandidateKind uint8

// The kinds of candidates.
const (
	Host            CandidateKind = iota // address of an interface
	ServerReflexive                      // as a STUN server saw it
	PeerReflexive                        // as a probe showed it
	PortMapped                           // PCP, NAT-PMP or UPnP
	Configured                           // public IP and port, or a load balancer
	LastProven                           // worked before the restart
	Predicted                            // of a NAT that numbers its mappings; never announced
)

// String returns the kind in words.
func (k CandidateKind) String() string {
	return name(k, "host", "server reflexive", "peer reflexive", "port mapped", "configured", "last proven", "predicted")
}

// Candidate is an address at which a peer may be reached.
type Candidate struct {
	Kind CandidateKind
	Addr netip.AddrPort
}

// Mapping behaviour, as NAT.Mapping has it (RFC 4787 section 4.1).
const (
	MappingUnknown                 uint8 = 0
	MappingNone                    uint8 = 1 // no NAT
	MappingEndpointIndependent     uint8 = 2
	MappingAddressDependent        uint8 = 3
	MappingAddressAndPortDependent uint8 = 4
)

// Filtering behaviour, as NAT.Filtering has it (RFC 4787 section 5).
const (
	FilteringUnknown                 uint8 = 0
	FilteringEndpointIndependent     uint8 = 1
	FilteringAddressDependent        uint8 = 2
	FilteringAddressAndPortDependent uint8 = 3
)

// NAT is what one end found out about the NATs before it. The zero value knows
// nothing.
type NAT struct {
	Mapping, Filtering uint8
	PortStep           int           // difference of successive mappings; zero: not predictable
	Lifetime           time.Duration // of an idle mapping; zero: not known
	Blocked            bool          // UDP does not get through
}

// hard reports that every destination sees another port.
func (n NAT) hard() bool { return n.Mapping >= MappingAddressDependent }

// random reports that this port cannot be predicted.
func (n NAT) random() bool { return n.hard() && n.PortStep == 0 }

// Local is our own end. A Machine keeps the slices and never writes to them;
// nor may anybody else once they are given away. The same Local may serve all
// Machines.
type Local struct {
	Candidates []Candidate
	NAT        NAT
	Own        []netip.Addr   // addresses of our interfaces, never probed
	Connected  []netip.Prefix // networks of our interfaces
	Forbidden  []netip.Prefix // overlay and pod subnets, never probed
	Hub        bool
}

// Remote is the peer's end, as it told us; for its slices the rules of Local
// hold. At most 100 candidates count.
type Remote struct {
	Candidates []Candidate
	NAT        NAT
	CanProbe   bool // its probe key is known
	Hub        bool
}

// RelayWay is a way over hubs (Kind Relay), or over TLS to a peer that is a hub
// itself (Kind Stream).
type RelayWay struct {
	Way     Way
	Via     []key.Public  // the hubs in order; empty for a Stream
	Cost    time.Duration // as far as the owner knows it: RTT, loss and Penalty
	Penalty time.Duration // the configured part of Cost, kept when the RTT is measured
	Leaving bool          // one of the hubs is about to stop: used only for want of another
}

// Config is what a Machine is made of.
type Config struct {
	Self, Peer key.Public
	// Rand gives transaction numbers and random ports. Its source must not be
	// predictable outside tests: an answer is believed by its transaction.
	// Nil means a ChaCha8 source that the runtime seeds.
	Rand *rand.Rand
	// RelayPenalty and StreamPenalty are added to the cost of these kinds.
	// Zero means 10 ms and 20 ms.
	RelayPenalty, StreamPenalty time.Duration
	// MinMTU and MaxMTU bound the inner MTU in bytes, multiples of 16. Zero
	// means 1184 and 1408.
	MinMTU, MaxMTU int
}
