//go:build linux

package lab

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Status is what a lab wants to know of GET /v1/status.
type Status struct {
	Node           string            `json:"node"`
	Gateway        string            `json:"gateway"`
	Role           string            `json:"role"`
	Datapath       string            `json:"datapath"`
	DatapathReason string            `json:"datapathReason"`
	PublicKey      string            `json:"publicKey"`
	OverlayAddress string            `json:"overlayAddress"`
	MTU            int               `json:"mtu"`
	Problems       []string          `json:"problems"`
	AllowSources   []string          `json:"allowSources"`
	Peers          []StatusPeer      `json:"peers"`
	Counters       map[string]uint64 `json:"counters"` // name or name{reason}
}

// StatusPeer is one peer of a Status.
type StatusPeer struct {
	Gateway        string   `json:"gateway"`
	Node           string   `json:"node"`
	PublicKey      string   `json:"publicKey"`
	OverlayAddress string   `json:"overlayAddress"`
	Subnets        []string `json:"subnets"`
	Path           struct {
		Kind     string   `json:"kind"`
		Endpoint string   `json:"endpoint"`
		Via      []string `json:"via"`
		Why      string   `json:"why"`
	} `json:"path"`
	NAT struct {
		Local  string `json:"local"`
		Remote string `json:"remote"`
	} `json:"nat"`
	RTTMillis     float64   `json:"rttMillis"`
	LossRatio     float64   `json:"lossRatio"`
	MTU           int       `json:"mtu"`
	LastHandshake time.Time `json:"lastHandshake"` // zero: none yet
	RxBytes       uint64    `json:"rxBytes"`
	TxBytes       uint64    `json:"txBytes"`
}

// Peer returns the peer on a node; nil when there is none.
func (s *Status) Peer(node string) *StatusPeer {
	for i := range s.Peers {
		if s.Peers[i].Node == node {
			return &s.Peers[i]
		}
	}
	return nil
}

// Reached makes a function for Agent.WaitStatus: every named peer has a path.
func Reached(nodes ...string) func(*Status) error {
	return func(s *Status) error {
		for _, n := range nodes {
			p := s.Peer(n)
			if p == nil {
				return fmt.Errorf("no peer %s", n)
			}
			if p.Path.Kind == "none" || p.Path.Kind == "" {
				return fmt.Errorf("peer %s has no path: %s", n, p.Path.Why)
			}
		}
		return nil
	}
}

// Troubled makes a function for Agent.WaitStatus: each of the texts stands in a
// problem.
func Troubled(texts ...string) func(*Status) error {
	return func(s *Status) error {
		for _, text := range texts {
			if !s.Problem(text) {
				return fmt.Errorf("no problem says %q, but %q", text, s.Problems)
			}
		}
		return nil
	}
}

// Untroubled is a function for Agent.WaitStatus: there is no problem.
func Untroubled(s *Status) error {
	if len(s.Problems) > 0 {
		return fmt.Errorf("problems: %q", s.Problems)
	}
	return nil
}

// Problem reports whether one of the problems contains the text.
func (s *Status) Problem(text string) bool {
	for _, p := range s.Problems {
		if strings.Contains(p, text) {
			return true
		}
	}
	return false
}

// OnPath makes a function for Agent.WaitStatus: the path to the node is of one of
// the kinds.
func OnPath(node string, kinds ...string) func(*Status) error {
	return func(s *Status) error {
		p := s.Peer(node)
		if p == nil {
			return fmt.Errorf("no peer %s", node)
		}
		if !slices.Contains(kinds, p.Path.Kind) {
			return fmt.Errorf("the path to %s is %s via %v, not %v: %s", node, p.Path.Kind, p.Path.Via, kinds, p.Path.Why)
		}
		return nil
	}
}
