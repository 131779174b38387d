package main

import (
	"context"
	"fmt"
	"time"

	"corax/dataplane"
	"corax/dataplane/key"
	"corax/nat"
	"corax/nat/path"
	"corax/nat/stun"
)

// askNAT bounds how long status waits for the agent of the paths.
const askNAT = 2 * time.Second

// natStatus returns what the agent of the paths says of every peer.
func (v *view) natStatus() map[key.Public]nat.PeerStatus {
	if v.tunnel == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), askNAT)
	defer cancel()
	return v.tunnel.nat.Status(ctx)
}

// names are the nodes of keys, for showing relays.
func (v *view) names(keys []key.Public) []string {
	var out []string
	for _, k := range keys {
		name := k.String()
		for _, p := range v.plan.Config.Peers {
			if p.PublicKey == k {
				name = p.Node
			}
		}
		out = append(out, name)
	}
	return out
}

// managedPath judges a path that a machine chose. Up means that something came
// over it lately; ok is false when there is none, and the tunnel follows the peer.
func (v *view) managedPath(n nat.PeerStatus, s dataplane.PeerStatus, keep bool, now time.Time) (p Path, ok bool) {
	w := n.Path.Way
	p.Why = n.Path.Why.String()
	if n.Path.Detail != "" {
		p.Why += ": " + n.Path.Detail
	}
	switch w.Kind {
	case path.None:
		if s.Endpoint.IsValid() || s.Stream || !s.Via.IsZero() {
			return p, false
		}
		p.Kind = PathNone
		if !n.Path.Active {
			p.Kind = PathIdle
		}
		return p, true
	case path.Direct:
		p.Kind, p.Endpoint = PathDirect, w.To.String()
		if n.Path.Why == path.ReasonBest {
			p.Why = directIsBest
		}
	case path.Relay:
		p.Kind, p.Via = PathRelay, v.names(n.Path.Via)
		if n.FirstTLS {
			p.Kind = PathRelayTLS
		}
	case path.Stream:
		p.Kind = PathRelayTLS
	}
	fresh := func(t time.Time) bool { return !t.IsZero() && now.Sub(t) < pathFresh }
	switch {
	case !n.Path.Active && !keep:
		p.Kind = PathIdle
	case s.LastHandshake.IsZero():
		where := "it"
		if p.Endpoint != "" {
			where = p.Endpoint
		}
		p.Kind, p.Why = PathNone, where+noAnswer
	case !n.Path.Proven && !fresh(n.Path.Heard) && !fresh(s.LastReceive):
		p.Kind = PathNone
		p.Why = fmt.Sprintf("nothing comes back%s; %s", since(latest(n.Path.Heard, s.LastReceive), now), p.Why)
	}
	return p, true
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// natWords says what NAT an end is behind.
func natWords(n path.NAT) string {
	switch {
	case n.Blocked:
		return "UDP blocked"
	case n == path.NAT{}:
		return ""
	}
	f := stun.Family{Mapping: stun.Mapping(n.Mapping), Filtering: stun.Filtering(n.Filtering), PortStep: n.PortStep}
	return f.String()
}

// paths tells of the ways to one peer.
func (a *agent) paths(name string) (Paths, error) {
	addr, ok := a.find(name)
	if !ok {
		return Paths{}, errNoTarget
	}
	v := a.view.Load()
	var out Paths
	found := false
	for _, p := range a.status().Peers {
		if p.OverlayAddress == addr {
			out = Paths{
				Gateway: p.Gateway, Node: p.Node, OverlayAddress: addr, Path: p.Path,
				RTTMillis: p.RTTMillis, LossRatio: p.LossRatio, MTU: p.MTU, NAT: p.NAT,
			}
			found = true
		}
	}
	if !found {
		return Paths{}, errNoTarget
	}
	for k, n := range v.natStatus() {
		if k.Overlay() == addr && n.Managed {
			v.fillPaths(&out, n)
		}
	}
	return out, nil
}

func (v *view) fillPaths(out *Paths, n nat.PeerStatus) {
	s := n.Path
	out.Since, out.Active, out.NextTry, out.Detail = s.Since, s.Active, s.NextTry, s.Detail
	if s.MTU6 != s.MTU {
		out.MTU6 = s.MTU6
	}
	for _, c := range s.Candidates {
		x := PathCandidate{
			Kind: PathDirect, Via: v.names(c.Via), Proven: c.Proven, InUse: c.Way == s.Way,
			RTTMillis: millis(c.RTT), LossRatio: c.Loss, CostMillis: millis(c.Score), MTU: c.MTU, Probes: c.Sent, Why: c.Why.String(),
		}
		switch c.Way.Kind {
		case path.Direct:
			x.Address, x.Candidate = c.Way.To.String(), c.Kind.String()
		case path.Stream:
			x.Kind = PathRelayTLS
		default:
			x.Kind = PathRelay
			if x.InUse && n.FirstTLS {
				x.Kind = PathRelayTLS
			}
		}
		out.Candidates = append(out.Candidates, x)
	}
	for _, t := range s.Transitions {
		out.Transitions = append(out.Transitions, PathTransition{
			At: t.At, From: v.wayText(t.From), To: v.wayText(t.To), Cause: t.Cause.String(), Detail: t.Detail,
		})
	}
}

// wayText says a way in words, without its label.
func (v *view) wayText(w path.Way) string {
	switch w.Kind {
	case path.Direct:
		return "direct " + w.To.String()
	case path.Relay:
		return "relay via " + v.names([]key.Public{w.Hub})[0]
	case path.Stream:
		return "TLS"
	default:
		return "none"
	}
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// netcheck looks at the network around this node.
func (a *agent) netcheck(ctx context.Context) (Netcheck, error) {
	v := a.view.Load()
	out := Netcheck{Node: a.cfg.NodeName, Gateway: v.plan.Gateway}
	if v.tunnel == nil {
		return out, fmt.Errorf("the tunnel port is not open: this node is a %v", v.plan.Role)
	}
	ctx, cancel := context.WithTimeout(ctx, maxNetcheck-2*time.Second)
	defer cancel()
	c, err := v.tunnel.nat.Netcheck(ctx)
	if err != nil {
		return out, err
	}
	out.UDPBlocked = c.NAT.Blocked
	out.IPv4, out.IPv6 = familyOf(c.NAT.V4), familyOf(c.NAT.V6)
	for _, h := range c.Hubs {
		s := serverOf(h.STUN)
		s.Gateway, s.Node, s.MTU = h.Gateway, h.Node, h.MTU
		out.MTU = max(out.MTU, h.MTU)
		out.Hubs = append(out.Hubs, s)
		if h.TLS == "" {
			continue
		}
		t := NetcheckTLS{Hub: h.Node, Address: h.TLS, Open: h.TLSOpen, RTTMillis: millis(h.TLSTime)}
		if h.TLSErr != nil {
			t.Error = h.TLSErr.Error()
		}
		out.TLS = append(out.TLS, t)
	}
	for _, s := range c.Servers {
		out.Servers = append(out.Servers, serverOf(s))
	}
	r := c.PortMap
	out.PortMapping = NetcheckPortMapping{
		PCP: r.PCP, NATPMP: r.NATPMP, UPnP: r.UPnP, DoubleNAT: r.DoubleNAT, Device: r.Device, Text: r.String(),
	}
	if r.Gateway.IsValid() {
		out.PortMapping.Router = r.Gateway.String()
	}
	if r.External.IsValid() {
		out.PortMapping.External = r.External.String()
	}
	if c.Mapped.IsValid() {
		out.PortMapping.Mapped = c.Mapped.String()
	}
	return out, nil
}

func familyOf(f stun.Family) NetcheckFamily {
	n := NetcheckFamily{
		Mapping: f.Mapping.String(), Filtering: f.Filtering.String(), PortPreserved: f.PortPreserved, PortStep: f.PortStep,
		LifetimeSeconds: int(f.Lifetime.Seconds()), Hairpin: f.Hairpin.String(), Blocked: f.Blocked,
	}
	for _, p := range f.Public {
		n.Public = append(n.Public, p.String())
	}
	return n
}

func serverOf(r stun.ServerReport) NetcheckServer {
	s := NetcheckServer{Answered: r.Answered, RTTMillis: millis(r.RTT)}
	if r.Addr.IsValid() {
		s.Address = r.Addr.String()
	}
	if r.Mapped.IsValid() {
		s.Mapped = r.Mapped.String()
	}
	return s
}
