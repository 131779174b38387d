package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"corax/control"
	"corax/control/api/v1beta1"
	"corax/control/failover"
	"corax/control/file"
	"corax/dataplane"
	"corax/dataplane/hostnet"
	"corax/dataplane/key"
	"corax/nat/path"
	"corax/proxy/front"
)

// source is where the Gateway objects come from.
type source interface {
	Run(ctx context.Context) error
}

// newSource makes the source that the configuration names. With a cluster it is
// also a.cluster.
func (a *agent) newSource() (source, error) {
	cfg := a.cfg
	if cfg.Gateways != "" {
		return file.New(file.Config{Dir: cfg.Gateways, Cache: cfg.StateDir, Log: a.log, Update: a.inbox.put})
	}
	c, err := newCluster(cfg, a.log, a.inbox)
	if err != nil {
		return nil, err
	}
	a.cluster = c
	return c, nil
}

// cluster is what an agent needs of a cluster. A build without Kubernetes (tag
// nokube) has none.
type cluster interface {
	source
	// Publish has this node's endpoint entries say e, soon.
	Publish(e entry)
	// Carry has this node's Lease say whether it can carry traffic, and why not.
	Carry(ok bool, why string)
	// Front says whether this node is a front of the proxy.
	Front(on bool)
	// Fronting fills in what a front needs of the cluster.
	Fronting(*front.Config)
	// Haste has this node's Lease renewed more often, while somebody who should
	// be active does not answer.
	Haste(on bool)
	// Endpoints are the ready endpoints of the Service that has an address, and a port
	// of "tcp" or "udp".
	Endpoints(network string, at netip.AddrPort) ([]netip.AddrPort, error)
	// Affinity is for how long a client is led to the same endpoint; zero: not at all.
	Affinity(network string, at netip.AddrPort) time.Duration
	// Server is the address of the API server; zero while that is not known.
	Server() netip.Addr
	// Connected reports whether the API server is there, and since when.
	Connected() (bool, time.Time)
	Problems() []string
	Counters() []dataplane.Counter
}

// entry is what this node's endpoint entries should say. An empty field leaves
// what stands there alone, but for the next key.
type entry struct {
	PublicKey, NextPublicKey string
	NATType                  string
	TLSPort                  int
}

// clusterProblems is what is wrong with the connection to the cluster.
func (a *agent) clusterProblems() []string {
	if a.cluster == nil {
		return nil
	}
	problems := a.cluster.Problems()
	if a.cfg.Unbound {
		problems = append(problems, "endpoint entries are unbound: any node can write the keys of any other (identity.insecure)\n"+
			"try: Kubernetes 1.30 or later, and identity.insecure=false")
	}
	return problems
}

// apiServer is the address of the API server; zero when there is none.
func (a *agent) apiServer() netip.Addr {
	if a.cluster == nil {
		return netip.Addr{}
	}
	return a.cluster.Server()
}

// clusterCounters are the counters of the connection to the cluster.
func (a *agent) clusterCounters() []dataplane.Counter {
	if a.cluster == nil {
		return nil
	}
	return a.cluster.Counters()
}

// report tells the cluster once a second what it should know of this node: its
// endpoint entry, and whether it can carry traffic. The control loop calls it.
func (a *agent) report(now time.Time, peers []dataplane.PeerStatus) {
	if a.cluster == nil {
		return
	}
	l := &a.loop
	if e := a.entry(now); e != l.entry {
		l.entry = e
		a.cluster.Publish(e)
	}
	v := a.view.Load()
	if !v.have {
		return
	}
	_, doubt := failover.Watch(a.failoverInput(v, now))
	a.cluster.Haste(doubt)
	_, err := hostnet.LinkMTU(a.cfg.NodeIP)
	l.listed = listedSince(l.listed, now, v.plan, a.public)
	f := carryFacts{
		now: now, started: l.opened, listed: l.listed, underlay: err,
		open: l.tunnel != nil && !l.tunnel.dead(), config: &v.plan.Config, peers: peers,
	}
	if ok, why, sure := f.judge(); sure {
		a.cluster.Carry(ok, why)
	}
}

// entry is what this node's endpoint entries in the Gateway objects should say.
func (a *agent) entry(now time.Time) entry {
	e := entry{PublicKey: a.public.String(), NextPublicKey: a.nextPublic(), TLSPort: int(a.cfg.TLSPort), NATType: a.loop.entry.NATType}
	v, l := a.view.Load(), &a.loop
	switch {
	case v.tunnel == nil || v.plan.Config.Self.Hub:
		e.NATType = ""
	case now.Sub(l.natAsked) >= natEvery:
		l.natAsked = now
		ctx, cancel := context.WithTimeout(context.Background(), natPatience)
		defer cancel()
		e.NATType = cmp.Or(ravenNAT(v.tunnel.nat.LocalNAT(ctx)), e.NATType)
	}
	return e
}

const (
	// natEvery is how often the NAT type is looked at, and natPatience how long
	// the control loop waits for it.
	natEvery    = 10 * time.Second
	natPatience = 200 * time.Millisecond
)

// ravenNAT says what NAT an end is behind in Raven's words; empty while that is
// not known. Filtering that is not known yet counts as the strictest, which is
// also what most NATs have.
func ravenNAT(n path.NAT) string {
	switch {
	case n.Blocked:
		return v1beta1.NATUndefined
	case n.Mapping == path.MappingUnknown:
		return ""
	case n.Mapping >= path.MappingAddressDependent:
		return v1beta1.NATSymmetric
	case n.Filtering == path.FilteringEndpointIndependent:
		return v1beta1.NATFullCone
	case n.Filtering == path.FilteringAddressDependent:
		return v1beta1.NATRestrictedCone
	default:
		return v1beta1.NATPortRestrictedCone
	}
}

const (
	// carryFresh is how long ago a peer that keeps a session must have been heard:
	// it sends a keepalive every 25 s at least.
	carryFresh = 40 * time.Second
	// carryPatience is how long nothing is said of a tunnel that peers could only just
	// answer: it was opened, or its key listed, then.
	carryPatience = 10 * time.Second
	// listPatience is how long a key may take into the Gateway object: up to 10 s of
	// random delay, and 30 s between two writes.
	listPatience = 45 * time.Second
)

// listedSince is since when the Gateway object has shown this node's key, as was says
// that it did so far. It is zero while the object does not.
func listedSince(was, now time.Time, plan control.Desired, k key.Public) time.Time {
	switch {
	case plan.Listed != k && plan.Next != k:
		return time.Time{}
	case was.IsZero():
		return now
	default:
		return was
	}
}

// carryFacts is all that decides whether this node can carry its domain's
// traffic.
type carryFacts struct {
	now      time.Time
	started  time.Time // when the tunnel was opened; zero: it is not
	listed   time.Time // since when peers could know this node's key; zero: they cannot
	underlay error     // what is wrong with the link of the node's address
	open     bool      // the tunnel device
	config   *dataplane.Config
	peers    []dataplane.PeerStatus // by key
}

// judge says whether the node can carry traffic, and if not, why. sure is false
// while that is not known yet.
func (f carryFacts) judge() (ok bool, why string, sure bool) {
	self := f.config.Self
	switch {
	case f.underlay != nil:
		return false, "the underlay is down: " + f.underlay.Error(), true
	case !self.Tunnel:
		return true, "", true // nothing to carry
	case !f.open:
		return false, "the tunnel device is not open", true
	}
	expected, heard, ever := 0, 0, false
	for i := range f.config.Peers {
		p := &f.config.Peers[i]
		if p.SameDomain || p.Keepalive == 0 && !self.Hub {
			continue // nobody keeps a session with it
		}
		at := f.lastReceive(p.PublicKey)
		ever = ever || !at.IsZero()
		if f.now.Sub(at) < carryFresh {
			heard++
		}
		expected++
	}
	switch {
	case heard > 0, expected == 0:
		return true, "", true
	case self.Hub && !ever:
		return true, "", true // it is called, and nobody has called yet
	case f.listed.IsZero() && f.now.Sub(f.started) < listPatience,
		f.now.Sub(f.started) < carryPatience,
		f.now.Sub(f.listed) < carryPatience:
		return false, "", false
	case f.listed.IsZero():
		return false, "the key of this node is not in its Gateway object, so no peer can answer", true
	case !ever:
		return false, fmt.Sprintf("none of %d peers has answered since the tunnel was opened", expected), true
	default:
		return false, fmt.Sprintf("none of %d peers was heard for %v", expected, carryFresh), true
	}
}

func (f carryFacts) lastReceive(k key.Public) time.Time {
	at, ok := slices.BinarySearchFunc(f.peers, k, func(s dataplane.PeerStatus, k key.Public) int {
		return bytes.Compare(s.PublicKey[:], k[:])
	})
	if !ok {
		return time.Time{}
	}
	return f.peers[at].LastReceive
}
