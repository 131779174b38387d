package main

import (
	"net/netip"
	"time"
)

// Paths is what an agent knows of the ways to one peer: GET /v1/paths?peer=NAME
// and `corax paths -o json`. Its JSON keys are stable.
type Paths struct {
	Gateway        string     `json:"gateway"`
	Node           string     `json:"node"`
	OverlayAddress netip.Addr `json:"overlayAddress"`
	Path           Path       `json:"path"`             // in use
	Since          time.Time  `json:"since,omitzero"`   // of Path
	Active         bool       `json:"active"`           // there is traffic
	RTTMillis      float64    `json:"rttMillis"`        // 0: not measured
	LossRatio      float64    `json:"lossRatio"`        // 0 to 1
	MTU            int        `json:"mtu"`              // inner, in bytes
	MTU6           int        `json:"mtu6,omitempty"`   // what inner IPv6 is told; 0: the same
	NextTry        time.Time  `json:"nextTry,omitzero"` // when better ways are probed again; zero: not planned
	Detail         string     `json:"detail"`           // what Path.Why leaves open, such as the text of an error; may be empty
	NAT            NAT        `json:"nat"`
	// Candidates are the ways that are, were or might be tried, in the agent's order.
	Candidates []PathCandidate `json:"candidates"`
	// Transitions are the last changes of Path, oldest first.
	Transitions []PathTransition `json:"transitions"`
}

// PathCandidate is one way to a peer.
type PathCandidate struct {
	Kind       PathKind `json:"kind"`       // direct, relay or relay-tls
	Address    string   `json:"address"`    // IP:port that packets go to
	Via        []string `json:"via"`        // relays, nearest first
	Candidate  string   `json:"candidate"`  // where a direct way's address is from, such as "server reflexive"; else empty
	Proven     bool     `json:"proven"`     // a probe on it was answered lately
	InUse      bool     `json:"inUse"`      // it is Paths.Path
	RTTMillis  float64  `json:"rttMillis"`  // 0: not measured
	LossRatio  float64  `json:"lossRatio"`  // of the last probes, 0 to 1
	CostMillis float64  `json:"costMillis"` // what the choice goes by, least first; 0: not known
	MTU        int      `json:"mtu"`        // inner, in bytes; 0: not searched
	Probes     int      `json:"probes"`     // sent on it
	Why        string   `json:"why"`        // what is the matter with it, in words
}

// PathTransition is one change of the way to a peer.
type PathTransition struct {
	At     time.Time `json:"at"`
	From   string    `json:"from"` // a way in words, such as "relay via hub-1"; "none": there was no way
	To     string    `json:"to"`
	Cause  string    `json:"cause"`  // in words
	Detail string    `json:"detail"` // may be empty
}

// complete makes every list non-nil, so that readers find [], not null.
func (p Paths) complete() Paths {
	p.Path.Via = orEmpty(p.Path.Via)
	p.Candidates = append([]PathCandidate{}, p.Candidates...)
	for i := range p.Candidates {
		p.Candidates[i].Via = orEmpty(p.Candidates[i].Via)
	}
	p.Transitions = orEmpty(p.Transitions)
	return p
}
