package forward

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"

	"corax/dataplane"
	"corax/dataplane/netstack"
	"corax/proxy/datagram"
	"corax/proxy/splice"
)

// Limits bound what is open at once. Zero values mean the defaults.
type Limits struct {
	// Connections are TCP connections that are established; 4096.
	Connections int
	// Flows are UDP flows; 4096.
	Flows int
	// Pings are echo requests' flows: one program that pings one host; 256.
	Pings int
}

// perSource is what one source may have of n.
func perSource(n int) int { return (n + 1) / 2 }

// Expose makes an address of this node's own subnets stand for another host, which
// may be one that is never dialled otherwise: loopback, for example.
type Expose struct{ At, To netip.Addr }

// Config configures a [Forwarder].
type Config struct {
	// Log takes state changes; nil means none.
	Log    *slog.Logger
	Limits Limits
	// Expose are the hosts outside this node's own subnets; at most one for each
	// address.
	Expose []Expose
	// ProxyProtocol are the destinations whose connections begin with a PROXY
	// protocol header.
	ProxyProtocol []Destinations
}

// Forwarder is the handler of a [netstack.Site]. Its methods may be called from
// several goroutines at once. Its goroutines are the Site's.
type Forwarder struct {
	cfg     Config
	log     *slog.Logger
	policy  atomic.Pointer[policy]
	count   counts
	pool    splice.Pool
	conns   places
	flows   flows
	pings   flows
	ping    ping
	buffers datagram.Pool
}

var _ netstack.SiteHandler = (*Forwarder)(nil)

// New makes a Forwarder that refuses everything until [Forwarder.SetSubnets].
func New(cfg Config) (*Forwarder, error) {
	l := &cfg.Limits
	if l.Connections < 0 || l.Flows < 0 || l.Pings < 0 {
		return nil, errors.New("forward: a limit below zero")
	}
	l.Connections, l.Flows, l.Pings = cmp.Or(l.Connections, 4096), cmp.Or(l.Flows, 4096), cmp.Or(l.Pings, 256)
	for i, e := range cfg.Expose {
		switch {
		case !e.At.IsValid() || !e.To.IsValid() || e.To.IsUnspecified() || e.To.IsMulticast():
			return nil, fmt.Errorf("forward: expose %s=%s: not the addresses of hosts", e.At, e.To)
		case e.At.Unmap().Is4() != e.To.Unmap().Is4():
			return nil, fmt.Errorf("forward: expose %s=%s: not of one family", e.At, e.To)
		case slices.ContainsFunc(cfg.Expose[:i], func(o Expose) bool { return o.At == e.At }):
			return nil, fmt.Errorf("forward: expose %s: named twice", e.At)
		}
	}
	f := &Forwarder{cfg: cfg, log: cfg.Log}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	f.log = f.log.With("component", "forward")
	f.conns.max = l.Connections
	f.flows.init(l.Flows)
	f.pings.init(l.Pings)
	f.policy.Store(newPolicy(nil, cfg.Expose))
	f.ping.probe()
	return f, nil
}

// SetSubnets says which subnets are this node's own. What is open stays.
func (f *Forwarder) SetSubnets(own []netip.Prefix) {
	f.policy.Store(newPolicy(own, f.cfg.Expose))
}

// Problems says what cannot be forwarded here, and why.
func (f *Forwarder) Problems() []string {
	if why := f.ping.problem(); why != "" {
		return []string{why}
	}
	return nil
}

// Status is what is open now.
type Status struct {
	Connections int // TCP
	Flows       int // UDP
	Pings       int
}

// Status returns what is open now.
func (f *Forwarder) Status() Status {
	return Status{Connections: f.conns.open(), Flows: f.flows.open(), Pings: f.pings.open()}
}

// counts are the counters of a Forwarder.
type counts struct {
	accepted, flows, pings, up, down atomic.Uint64
	stalls                           atomic.Uint64

	notOurs, forbidden       atomic.Uint64 // the policy said no
	refused, silent, noRoute atomic.Uint64 // what the real destination said
	noAccept                 atomic.Uint64 // who asked did not go on
	full, fullSource         atomic.Uint64 // limits
	noSocket                 atomic.Uint64 // the host has none left
	datagrams                atomic.Uint64 // that a socket did not take
	noPing                   atomic.Uint64
}

// Counters returns the counters of the Forwarder.
func (f *Forwarder) Counters() []dataplane.Counter {
	const drop = "forward_drop_total"
	c, s := &f.count, f.Status()
	return []dataplane.Counter{
		{Name: "forward_connections_total", Value: c.accepted.Load()},
		{Name: "forward_flows_total", Value: c.flows.Load()},
		{Name: "forward_pings_total", Value: c.pings.Load()},
		{Name: "forward_open", Reason: "tcp", Value: uint64(s.Connections)},
		{Name: "forward_open", Reason: "udp", Value: uint64(s.Flows)},
		{Name: "forward_open", Reason: "ping", Value: uint64(s.Pings)},
		{Name: "forward_bytes_total", Reason: "in", Value: c.up.Load()},
		{Name: "forward_bytes_total", Reason: "out", Value: c.down.Load()},
		{Name: "forward_stalls_total", Value: c.stalls.Load()},
		{Name: drop, Reason: "not_ours", Value: c.notOurs.Load()},
		{Name: drop, Reason: "forbidden", Value: c.forbidden.Load()},
		{Name: drop, Reason: "refused", Value: c.refused.Load()},
		{Name: drop, Reason: "silent", Value: c.silent.Load()},
		{Name: drop, Reason: "unreachable", Value: c.noRoute.Load()},
		{Name: drop, Reason: "not_accepted", Value: c.noAccept.Load()},
		{Name: drop, Reason: "full", Value: c.full.Load()},
		{Name: drop, Reason: "full_source", Value: c.fullSource.Load()},
		{Name: drop, Reason: "no_socket", Value: c.noSocket.Load()},
		{Name: drop, Reason: "datagram", Value: c.datagrams.Load()},
		{Name: drop, Reason: "no_ping", Value: c.noPing.Load()},
	}
}
