package nat

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"corax/dataplane/key"
	"corax/nat/path"
	"corax/nat/portmap"
	"corax/nat/relay"
	"corax/nat/stream"
	"corax/nat/stun"
)

// PeerStatus is a snapshot of one peer.
type PeerStatus struct {
	Key key.Public
	// Managed says that a path machine chooses the path, and Path is its status.
	Managed bool
	Path    path.Status
	// FirstTLS says that the first hop of a relay goes over a TLS stream.
	FirstTLS bool
	// RTT and Loss are those of the machine, or of our own probes when the peer
	// chooses the path; zero: not measured.
	RTT  time.Duration
	Loss float64
	// Remote is the NAT that the peer told of.
	Remote path.NAT
	// Told says that the peer has told anything about itself.
	Told bool
}

// Status returns a snapshot of every peer, or nil when Run does not work.
func (a *Agent) Status(ctx context.Context) map[key.Public]PeerStatus {
	var all map[key.Public]PeerStatus
	if a.tunnel.Load() == nil || a.await(ctx, func() {
		next := make(map[key.Public]PeerStatus, len(a.peers))
		for k, p := range a.peers {
			next[k] = a.statusOf(p)
		}
		all = next
	}) != nil {
		return nil
	}
	return all
}

// PeerStatusOf returns a snapshot of one peer.
func (a *Agent) PeerStatusOf(ctx context.Context, k key.Public) (s PeerStatus, ok bool) {
	if a.tunnel.Load() == nil {
		return s, false
	}
	got, found := make(chan PeerStatus, 1), false
	err := a.await(ctx, func() {
		if p := a.peers[k]; p != nil {
			got <- a.statusOf(p)
		} else {
			close(got)
		}
	})
	if err != nil {
		return s, false
	}
	s, found = <-got
	return s, found
}

func (a *Agent) statusOf(p *peer) PeerStatus {
	s := PeerStatus{Key: p.Key, Managed: p.machine != nil, Remote: p.remote.NAT, Told: p.remote.CanProbe}
	if p.machine == nil {
		s.RTT, s.Loss = p.link.RTT(), p.link.Loss()
		return s
	}
	s.Path = p.machine.Status()
	s.RTT, s.Loss = s.Path.RTT, s.Path.Loss
	switch p.way.Kind {
	case path.Stream:
		s.FirstTLS = true
	case path.Relay:
		h := a.peers[p.way.Hub]
		s.FirstTLS = h != nil && h.way.Kind == path.Stream
	}
	return s
}

// LocalNAT returns what is known of the NATs before us.
func (a *Agent) LocalNAT(ctx context.Context) (nat path.NAT) {
	if a.tunnel.Load() != nil {
		got := make(chan path.NAT, 1)
		if a.await(ctx, func() { got <- a.local.NAT }) == nil {
			return <-got
		}
	}
	return nat
}

// Check is what `corax netcheck` shows.
type Check struct {
	NAT     stun.Report
	Hubs    []CheckedHub
	Servers []stun.ServerReport // those that are no hubs
	PortMap portmap.Report
	Mapped  netip.AddrPort // the mapping in force
}

// CheckedHub is a hub as netcheck saw it.
type CheckedHub struct {
	Gateway, Node string
	Key           key.Public
	STUN          stun.ServerReport // zero: not asked
	TLS           string            // host:port; empty: it has none
	TLSOpen       bool
	TLSTime       time.Duration
	TLSErr        error
	MTU           int // inner; zero: not measured
}

// maxTLSChecks is how many hubs' TLS ports are tried.
const maxTLSChecks = 8

// Netcheck asks all servers anew and waits for the outcome, which takes up to
// some 10 s. When ctx ends earlier, what is known then is returned.
func (a *Agent) Netcheck(ctx context.Context) (Check, error) {
	var c Check
	settled := make(chan struct{})
	err := a.await(ctx, func() {
		a.discovery.started = time.Time{}
		a.discover("netcheck")
		if a.discovery.run == nil {
			close(settled)
			return
		}
		a.discovery.waiting = append(a.discovery.waiting, func() { close(settled) })
		for _, p := range a.plan.Peers {
			if p.Hub && !p.SameDomain && len(c.Hubs) < maxTLSChecks {
				c.Hubs = append(c.Hubs, CheckedHub{
					Gateway: p.Gateway, Node: p.Node, Key: p.Key, TLS: p.TLS,
					STUN: stun.ServerReport{Addr: p.Endpoint}, MTU: a.peers[p.Key].mtu, TLSOpen: a.peers[p.Key].conn != nil,
				})
			}
		}
	})
	if err != nil {
		return Check{}, err // the loop may still write to c
	}
	var wg sync.WaitGroup
	wg.Go(func() { c.PortMap = a.mapper.Probe(ctx) })
	for i := range c.Hubs {
		if h := &c.Hubs[i]; h.TLS != "" {
			wg.Go(func() { a.checkTLS(ctx, h) })
		}
	}
	select {
	case <-settled:
	case <-ctx.Done():
	}
	wg.Wait()
	c.Mapped, _, _ = a.mapper.Mapping()
	look, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	report := make(chan stun.Report, 1)
	if err := a.await(look, func() { report <- a.discovery.report }); err != nil {
		return c, err
	}
	c.NAT = <-report
	for _, s := range c.NAT.Servers {
		i := slices.IndexFunc(c.Hubs, func(h CheckedHub) bool { return h.STUN.Addr == s.Addr })
		if i < 0 {
			c.Servers = append(c.Servers, s)
			continue
		}
		c.Hubs[i].STUN = s
	}
	return c, nil
}

// checkTLS opens a stream to a hub and closes it. A stream that is open already
// shows that it works, and another would take its place.
func (a *Agent) checkTLS(ctx context.Context, h *CheckedHub) {
	if h.TLSOpen {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	begin := time.Now()
	conn, err := stream.Dial(ctx, stream.DialConfig{
		Private: a.cfg.Private, Hub: h.Key, Addr: h.TLS, Counts: &a.dialers.counts, Receive: func(*stream.Conn, [][]byte) {},
	})
	h.TLSTime, h.TLSErr, h.TLSOpen = time.Since(begin), err, err == nil
	if err == nil {
		conn.Close()
	}
}

// Counter is the value of one of the counters; it has the fields of
// dataplane.Counter.
type Counter struct {
	Name   string
	Reason string
	Value  uint64
}

// Counters returns the present values of all counters.
func (a *Agent) Counters() []Counter {
	var all []Counter
	for r := range dropReasons {
		all = append(all, Counter{"nat_drop_total", r.String(), a.inbox.drops[r].Load()})
	}
	for _, c := range a.stunServer.Counters() {
		all = append(all, Counter(c))
	}
	for _, c := range a.hello.Counters() {
		all = append(all, Counter(c))
	}
	for _, c := range a.mapper.Counters() {
		all = append(all, Counter(c))
	}
	for _, counts := range [2]*stream.Counts{&a.dialers.counts, &a.server.counts} {
		for _, c := range counts.Counters() {
			i := slices.IndexFunc(all, func(o Counter) bool { return o.Name == c.Name && o.Reason == c.Reason })
			if i < 0 {
				all = append(all, Counter(c))
				continue
			}
			all[i].Value += c.Value
		}
	}
	for r := range path.Reasons {
		all = append(all, Counter{"nat_path_changes_total", r.Code(), a.changes[r].Load()})
	}
	for _, c := range a.refused() {
		all = append(all, Counter{"nat_relay_drop_total", c.Reason, c.Value})
	}
	return all
}

// refused are the book's counters, as the loop last showed them.
func (a *Agent) refused() []relay.Counter {
	if c := a.bookCounters.Load(); c != nil {
		return *c
	}
	return nil
}

// Problems are what is wrong and does not go away by itself.
func (a *Agent) Problems() []string {
	if err := a.server.err.Load(); err != nil && a.isHub.Load() {
		return []string{"no TLS fallback is served: " + (*err).Error()}
	}
	return nil
}
