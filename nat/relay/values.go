package relay

import (
	"time"

	"corax/dataplane/key"
)

const (
	// Lapse is how long a label lives after the last message that asked for it,
	// and how long a told one counts after the last message that told it.
	Lapse = 60 * time.Second

	// MaxWanted is the number of peers that one peer may ask for, and of those
	// that we ask one hub for.
	MaxWanted = 1024
	// MaxLabels is the number of labels on each link, in each direction.
	MaxLabels = 1024
	// MaxCircuits is the number of pairs that a hub serves.
	MaxCircuits = 16384
	// maxTry is how many other hubs are asked for the same pair until one gave
	// a label.
	maxTry = 4
	// maxHubs is how many hubs may tell us labels.
	maxHubs = 1024
	// maxVia is the number of further hubs in a told label.
	maxVia = 4
)

// Want asks a hub for a label to Peer. Its fields are those of control/hello.
type Want struct {
	Peer   key.Public
	Next   key.Public // the next hub; zero: the hub chooses; the hub itself: directly
	Origin key.Public // for whom a hub asks; zero: for itself
}

// Label is how to send to Peer through who told it. Its fields are those of
// control/hello.
type Label struct {
	Peer       key.Public
	Label      uint64
	CostMicros uint32
	Via        []key.Public
	Origin     key.Public // for frames of Origin; zero: of the receiver itself
}

// Forward says what to do with frames that From sends us with a label: go on to
// To with label Out. Out zero: they are for us, and To is their origin.
type Forward struct {
	From, To key.Public
	Out      uint64
}

// Session is a peer that we reach ourselves, directly or over a stream: never
// one that we only reach through a relay.
type Session struct {
	Peer key.Public
	Hub  bool // it relays
	Cost time.Duration
}

// Link is what another hub says of its own sessions.
type Link struct {
	Hub, To key.Public
	Cost    time.Duration
}

// Ask is where we want a peer: at Hub, going on to Next (zero: the hub chooses).
type Ask struct{ Hub, Next key.Public }

// Relay is a way to a peer: frames with Label to Hub. Via are the further hubs.
type Relay struct {
	Hub   key.Public
	Label uint64
	Via   []key.Public
	Cost  time.Duration // to the peer, without penalties
}

// Counter counts the wants and labels that were not accepted, by reason.
type Counter struct {
	Reason string
	Value  uint64
}

type reason int

const (
	notRelaying reason = iota
	notAllowed
	notHub
	badWant
	tooMany
	badLabel
	collision
	reasons
)

func (r reason) String() string {
	return [...]string{
		"not_relaying", "not_allowed", "not_hub", "bad_want", "too_many",
		"bad_label", "label_collision",
	}[r]
}

func micros(d time.Duration) uint32 {
	return uint32(min(max(d/time.Microsecond, 0), 1<<32-1))
}
