package path

import (
	"time"

	"corax/dataplane/key"
)

// Status is a snapshot of a Machine. It belongs to the caller, but for Via.
type Status struct {
	Way         Way
	Via         []key.Public // hubs of a relay; must not be written to
	Since       time.Time    // of Way
	Active      bool         // there is traffic; false: idle
	Proven      bool         // a probe on Way was answered lately
	Why         Reason       // why it is not better
	Detail      string       // what Why leaves open, such as the text of an error; may be empty
	RTT         time.Duration
	Loss        float64   // of the last probes on Way, 0 to 1
	MTU         int       // inner, of Way
	MTU6        int       // what is shown for IPv6: never below 1280
	Heard       time.Time // last sign of life over Way
	NextTry     time.Time // when candidates are probed again; zero: not planned
	Candidates  []CandidateStatus
	Transitions []Transition // the last 100, oldest first
	Probes      uint64       // sent
	BadAnswers  uint64       // answers without their probe, or from another address
}

// CandidateStatus is one way that is, was or might be tried.
type CandidateStatus struct {
	Way    Way
	Kind   CandidateKind // of a Direct way
	Via    []key.Public  // of a Relay way
	Proven bool
	RTT    time.Duration
	Loss   float64
	Score  time.Duration // cost; zero: not known
	MTU    int           // inner; zero: not searched
	Sent   int           // probes
	Why    Reason
}

// Transition is one change of the way in use.
type Transition struct {
	At       time.Time
	From, To Way
	Cause    Reason
	Detail   string
}

// MTU6 is the inner MTU that IPv6 is shown on a path with the inner MTU mtu: at
// least 1280, which RFC 8200 section 5 asks of every link. Inner IPv6 packets
// between the two are sent in outer datagrams that may be fragmented.
func MTU6(mtu int) int { return max(mtu, minMTU6) }
