package main

import (
	"net/netip"
	"time"

	"corax/dataplane/key"
)

// Status is what an agent says of itself: GET /v1/status and `corax status -o
// json`. Its JSON keys are stable.
type Status struct {
	Node           string     `json:"node"`
	Gateway        string     `json:"gateway"` // empty: in none
	Role           Role       `json:"role"`
	Datapath       string     `json:"datapath"`
	DatapathReason string     `json:"datapathReason"` // why this one; may be empty
	PublicKey      key.Public `json:"publicKey"`
	OverlayAddress netip.Addr `json:"overlayAddress"`
	MTU            int        `json:"mtu"` // of the TUN, in bytes
	Version        string     `json:"version"`
	// AllowSources, when not empty, says that an allow list is in force here: a
	// hub takes packets from nobody else.
	AllowSources []netip.Prefix `json:"allowSources"`
	Problems     []string       `json:"problems"`
	Peers        []Peer         `json:"peers"`
	// Proxy is proxy mode on this node; absent while it is off, or has nothing to do
	// here.
	Proxy *ProxyStatus `json:"proxy,omitempty"`
	// Userspace is what stands in for a TUN, and the proxies for programs of this
	// node; absent when there is neither.
	Userspace *UserspaceStatus `json:"userspace,omitempty"`
	// Memory is what the agent may use, and what its queues and buffers are made for.
	Memory *MemoryStatus `json:"memory,omitempty"`
	// Counters holds the drop counters that are not zero, as name or
	// name{reason}.
	Counters map[string]uint64 `json:"counters"`
}

// MemoryStatus is a memory profile.
type MemoryStatus struct {
	Profile string `json:"profile"` // 32, 64, 256, full
	Why     string `json:"why"`
	// LimitBytes is what the agent may use, HeapLimitBytes what its heap keeps
	// below; 0: nothing bounds it, or GOMEMLIMIT says.
	LimitBytes     int64 `json:"limitBytes"`
	HeapLimitBytes int64 `json:"heapLimitBytes"`
}

// Role is what a node is in its domain.
type Role string

// The roles.
const (
	RoleGateway Role = "gateway"
	RoleStandby Role = "standby"
	RoleNode    Role = "node"
	RoleNone    Role = "none" // in no Gateway object
)

// Peer is another gateway node or standby, or, on a plain node, a gateway node
// of its own domain.
type Peer struct {
	Gateway        string         `json:"gateway"`
	Node           string         `json:"node"`
	PublicKey      key.Public     `json:"publicKey"`
	OverlayAddress netip.Addr     `json:"overlayAddress"`
	Subnets        []netip.Prefix `json:"subnets"`
	Path           Path           `json:"path"`
	RTTMillis      float64        `json:"rttMillis"` // 0: not measured
	LossRatio      float64        `json:"lossRatio"` // 0 to 1
	MTU            int            `json:"mtu"`       // inner, in bytes
	LastHandshake  time.Time      `json:"lastHandshake,omitzero"`
	RxBytes        uint64         `json:"rxBytes"`
	TxBytes        uint64         `json:"txBytes"`
	NAT            NAT            `json:"nat"`
}

// Path is the way to a peer.
type Path struct {
	Kind     PathKind `json:"kind"`
	Endpoint string   `json:"endpoint"` // IP:port that packets go to; empty: none
	Via      []string `json:"via"`      // relays, nearest first
	Why      string   `json:"why"`      // why it is not better, in words
}

// PathKind is the kind of a path.
type PathKind string

// The kinds of paths.
const (
	PathDirect   PathKind = "direct"
	PathRelay    PathKind = "relay"
	PathRelayTLS PathKind = "relay-tls" // the first hop is over TLS
	PathVXLAN    PathKind = "vxlan"     // inside the domain
	PathIdle     PathKind = "idle"      // no traffic, so nothing is known
	PathNone     PathKind = "none"
)

// Reachable reports whether a peer with a path of this kind counts as reachable.
func (k PathKind) Reachable() bool {
	switch k {
	case PathDirect, PathRelay, PathRelayTLS, PathVXLAN, PathIdle:
		return true
	default:
		return false
	}
}

// NAT is what is in front of each end, in the words of RFC 4787; empty: unknown.
type NAT struct {
	Local  string `json:"local"`
	Remote string `json:"remote"`
}

// PingReply is one line of GET /v1/ping: what became of one echo request.
type PingReply struct {
	Seq       int        `json:"seq"` // from 1
	Gateway   string     `json:"gateway"`
	Node      string     `json:"node"`
	Address   netip.Addr `json:"address"`
	Lost      bool       `json:"lost,omitempty"` // no answer in time; RTTMillis is 0
	RTTMillis float64    `json:"rttMillis"`
	Path      Path       `json:"path"` // when the answer came
}

// complete makes every list non-nil, so that readers find [] and {}, not null.
func (s Status) complete() Status {
	s.AllowSources, s.Problems = orEmpty(s.AllowSources), orEmpty(s.Problems)
	s.Peers = append([]Peer{}, s.Peers...)
	for i := range s.Peers {
		s.Peers[i].Subnets = orEmpty(s.Peers[i].Subnets)
		s.Peers[i].Path.Via = orEmpty(s.Peers[i].Path.Via)
	}
	if s.Counters == nil {
		s.Counters = map[string]uint64{}
	}
	return s
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
