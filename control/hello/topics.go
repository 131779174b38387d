package hello

import (
	"fmt"
	"net/netip"
	"time"

	"corax/dataplane/key"
)

// Topic is one of the values that peers tell each other.
type Topic uint8

// The topics, by their number on the wire.
const (
	TopicSelf Topic = iota + 1
	TopicCandidates
	TopicRelay
	TopicCosts
	TopicClaims
	topicEnd

	// topicDomain is that of datagrams inside a domain, which no Exchange takes.
	topicDomain Topic = 15
)

// String returns the topic's name, for logs.
func (t Topic) String() string {
	switch t {
	case TopicSelf:
		return "self"
	case TopicCandidates:
		return "candidates"
	case TopicRelay:
		return "relay"
	case TopicCosts:
		return "costs"
	case TopicClaims:
		return "claims"
	}
	return fmt.Sprintf("topic %d", uint8(t))
}

// Bounds on what is said; senders that exceed them get an error, receivers
// refuse the whole value.
const (
	MaxText   = 253 // bytes of each text
	MaxAddrs  = 64
	MaxWanted = 1024
	MaxLabels = 1024
	MaxVia    = 4
	MaxLinks  = 2048
	MaxActive = 8
)

// Self says who the peer is. Texts hold printable characters only.
type Self struct {
	Version       string // of the program
	Gateway, Node string // names of the objects
	Hub           bool   // it believes that it is a hub
	Draining      bool   // it is about to stop: use others
}

// Candidate is an address at which the peer may be reached. Kind is nat/path's.
// Addr is neither multicast, loopback nor unspecified, and has no zone.
type Candidate struct {
	Kind uint8
	Addr netip.AddrPort
}

// Candidates is what somebody needs to probe the peer. Its numbers are those of
// nat/path. It prints without the probe key.
type Candidates struct {
	ProbeID            [8]byte
	ProbeKey           [32]byte // never all zero when received
	Addrs              []Candidate
	Mapping, Filtering uint8
	PortStep           int16
	Blocked            bool // UDP does not get out at all
	// Calls grows each time the receiver is asked to answer with its own and to
	// probe now: act when it is another than before. Zero: never asked.
	Calls uint32
	// MTU is the inner MTU in bytes that the sender found on its path to the
	// receiver; zero: it has not.
	MTU uint16
	// Test asks a hub to send to an address, so that the sender learns how its NAT
	// filters; zero: nothing is asked.
	Test Test
}

// Test is a test of the filtering behaviour (RFC 4787 section 5): the hub sends
// answers with the transaction Tx, under the probe key of whoever asks, to Addr,
// from its tunnel port and from another one.
type Test struct {
	Tx   [12]byte
	Addr netip.AddrPort
}

// Format writes c without its probe key, for every verb.
func (c Candidates) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "{%x %v mapping %d filtering %d step %d blocked %t calls %d}",
		c.ProbeID, c.Addrs, c.Mapping, c.Filtering, c.PortStep, c.Blocked, c.Calls)
}

// Want asks a hub for a label to Peer.
type Want struct {
	Peer   key.Public
	Next   key.Public // the next hub; zero: the hub chooses; the hub itself: directly
	Origin key.Public // for whom a hub asks; zero: for the sender itself
}

// Label is how to send to Peer through the sender of the hello, and what frames
// from Peer carry when they come from there. With an Origin it is for frames
// that a hub sends on behalf of Origin.
type Label struct {
	Peer       key.Public
	Label      uint64 // 56 bits, never zero
	CostMicros uint32 // from the sender onward to Peer, in µs
	Via        []key.Public
	Origin     key.Public // zero: the receiver itself
}

// Relay is what the sender wants from the receiver as a hub, and the labels that
// it gives the receiver.
type Relay struct {
	Wanted []Want
	Labels []Label
}

// Link is a measured link of the sender.
type Link struct {
	To     key.Public
	Micros uint32 // cost in µs
	Hub    bool   // To is a hub
}

// Costs are the links that a hub floods.
type Costs struct{ Links []Link }

// Claims say which nodes carry the subnets of the sender's domain: what the
// Gateway object says, or, with a higher epoch, what the sender claims since
// others died. Which subnets that are follows from the object.
type Claims struct {
	Gateway string
	Epoch   uint64
	Active  []string // names of nodes
}

// Heard is what a peer said and still says: nil for what it did not, or what is
// older than three heartbeats. The values are shared and must not be changed; a
// repetition of the same value keeps its pointer.
type Heard struct {
	Self       *Self
	Candidates *Candidates
	Relay      *Relay
	Costs      *Costs
	Claims     *Claims
	At         time.Time // of the last message that counted; zero: none
}
