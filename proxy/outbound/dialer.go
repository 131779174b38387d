package outbound

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"corax/dataplane"
)

var (
	// ErrForbidden means that a destination is in no subnet of another domain.
	ErrForbidden = errors.New("not in a subnet of another domain")
	// ErrNoName means that a name has no address, or that nobody can be asked.
	ErrNoName = errors.New("no address for that name")
)

const (
	dialTimeout = 15 * time.Second
	nameTimeout = 8 * time.Second
	// maxTried bounds how many addresses of one name are dialled.
	maxTried = 4
)

// Network is the way into the tunnel: a stack of the agent's own, or the kernel's.
type Network interface {
	DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	DialUDP(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	// ListenUDP makes a socket that may send to every address of a family.
	ListenUDP(v6 bool) (net.PacketConn, error)
}

// Config configures a [Dialer].
type Config struct {
	// Log takes state changes; nil means none.
	Log *slog.Logger
	// Network is needed.
	Network Network
	// Reach reports whether an address is in a subnet of another domain. It is
	// needed, and may be called from several goroutines at once.
	Reach func(netip.Addr) bool
	// Ping makes a connection whose messages are a sequence number in two bytes,
	// big-endian, and a payload: what is written is sent as an echo request, and what is
	// read are the answers. An ICMP error fails a read with ECONNREFUSED, EACCES or
	// EHOSTUNREACH. Nil: pings are refused. It is called as Reach is.
	Ping func(ctx context.Context, to netip.Addr) (net.Conn, error)
	// Pingable reports whether an address that is none of Reach's answers pings, and
	// nothing else: an agent's own. Nil: there is none. It is called as Reach is.
	Pingable func(netip.Addr) bool
	// DNS is the cluster's name server, in a subnet of another domain or a Service;
	// zero means that names are refused.
	DNS netip.AddrPort
	// ServiceCIDRs have the addresses of Services; empty means that these are refused
	// as every other address.
	ServiceCIDRs []netip.Prefix
	// Endpoints returns the ready endpoints of the Service that has an address, and a
	// port of "tcp" or "udp"; an error says why none is known. It is needed with
	// ServiceCIDRs, and may be called from several goroutines at once.
	Endpoints func(network string, at netip.AddrPort) ([]netip.AddrPort, error)
	// Affinity is for how long a client is led to the same endpoint of a Service; zero:
	// not at all. It is called as Endpoints is; nil means that no Service has any.
	Affinity func(network string, at netip.AddrPort) time.Duration
	// Streams bounds what is open at once through one port map; zero means 1024,
	// which is the most.
	Streams int
}

// most is how many streams or flows may be open at once through one port map.
func (d *Dialer) most() int {
	if d.cfg.Streams <= 0 {
		return maxStreams
	}
	return min(maxStreams, d.cfg.Streams)
}

// Dialer connects with other domains. Its methods may be called from several
// goroutines at once.
type Dialer struct {
	cfg      Config
	log      *slog.Logger
	resolver net.Resolver

	affinities affinities

	dialled, forbidden, unnamed, failed atomic.Uint64
	toService, next                     atomic.Uint64
	noService, noEndpoint               atomic.Uint64
}

// NewDialer makes a Dialer.
func NewDialer(cfg Config) (*Dialer, error) {
	if cfg.Network == nil || cfg.Reach == nil {
		return nil, errors.New("outbound: no network, or nobody knows what it reaches")
	}
	if len(cfg.ServiceCIDRs) > 0 && cfg.Endpoints == nil {
		return nil, errors.New("outbound: nobody knows what is behind the addresses of Services")
	}
	d := &Dialer{cfg: cfg, log: cfg.Log}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	d.resolver = net.Resolver{PreferGo: true, Dial: d.dialDNS}
	return d, nil
}

// dialDNS ignores which server the host's own configuration names.
func (d *Dialer) dialDNS(ctx context.Context, network, _ string) (net.Conn, error) {
	c, err := d.dialAny(ctx, network[:min(len(network), 3)], []netip.Addr{d.cfg.DNS.Addr()}, d.cfg.DNS.Port())
	if err != nil {
		err = fmt.Errorf("name server %s: %w", d.cfg.DNS, err)
	}
	return c, err
}

// DialDNS connects with the cluster's name server by "tcp" or "udp".
func (d *Dialer) DialDNS(ctx context.Context, network string) (net.Conn, error) {
	if !d.cfg.DNS.IsValid() {
		d.unnamed.Add(1)
		return nil, fmt.Errorf("outbound: %w: %w", ErrNoName, errNoDNS)
	}
	ctx, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	c, err := d.dialDNS(ctx, network, "")
	if err != nil {
		d.failed.Add(1)
		return nil, fmt.Errorf("outbound: %w", err)
	}
	return c, nil
}

var errNoDNS = errors.New("no --cluster-dns is given")

// Check says why an address is not dialled; nil: it is, or is that of a Service. A
// refusal is counted.
func (d *Dialer) Check(a netip.Addr) error {
	if d.reachable(a) || d.isService(a) {
		return nil
	}
	d.forbidden.Add(1)
	return fmt.Errorf("%s: %w", a.Unmap(), ErrForbidden)
}

// reachable reports whether a tunnel carries an address.
func (d *Dialer) reachable(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsValid() && a.Zone() == "" && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsMulticast() && !a.IsUnspecified() && d.cfg.Reach(a)
}

// Addrs returns the addresses of a host that may be dialled: an address itself, or
// those of a name. Its error is [ErrForbidden] when there are others only.
func (d *Dialer) Addrs(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, d.Check(a)
	}
	all, err := d.lookUp(ctx, host)
	if err != nil {
		d.unnamed.Add(1)
		return nil, fmt.Errorf("%s: %w: %w", host, ErrNoName, err)
	}
	var out []netip.Addr
	for _, a := range all {
		if err = d.Check(a); err == nil {
			out = append(out, a.Unmap())
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: %w", host, err)
	}
	return out[:min(len(out), maxTried)], nil
}

func (d *Dialer) lookUp(ctx context.Context, name string) ([]netip.Addr, error) {
	if !d.cfg.DNS.IsValid() {
		return nil, errNoDNS
	}
	ctx, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	// With the final dot: the search list of this host is not the cluster's.
	all, err := d.resolver.LookupNetIP(ctx, "ip", strings.TrimSuffix(name, ".")+".")
	if err == nil && len(all) == 0 {
		err = errors.New("none")
	}
	return all, err
}

// DialTCP connects with a port of a host, an address or a name.
func (d *Dialer) DialTCP(ctx context.Context, host string, port uint16) (net.Conn, error) {
	return d.dial(ctx, "tcp", host, port)
}

// DialUDP makes a socket that is connected with a port of a host.
func (d *Dialer) DialUDP(ctx context.Context, host string, port uint16) (net.Conn, error) {
	return d.dial(ctx, "udp", host, port)
}

// ListenUDP makes a socket that may send to every address of a family. Whoever
// sends asks Targets.
func (d *Dialer) ListenUDP(v6 bool) (net.PacketConn, error) { return d.cfg.Network.ListenUDP(v6) }

func (d *Dialer) dial(ctx context.Context, network, host string, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	addrs, err := d.Addrs(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("outbound: %w", err)
	}
	c, err := d.dialAny(ctx, network, addrs, port)
	switch {
	case err == nil:
		d.dialled.Add(1)
		return c, nil
	case !errors.Is(err, ErrNoService): // that is counted
		d.failed.Add(1)
	}
	return nil, fmt.Errorf("outbound: %w", err)
}

// Counters returns the counters of the Dialer.
func (d *Dialer) Counters() []dataplane.Counter {
	const drop = "outbound_drop_total"
	return []dataplane.Counter{
		{Name: "outbound_dialled_total", Value: d.dialled.Load()},
		{Name: "outbound_service_total", Reason: "dialled", Value: d.toService.Load()},
		{Name: "outbound_service_total", Reason: "next", Value: d.next.Load()},
		{Name: drop, Reason: "forbidden", Value: d.forbidden.Load()},
		{Name: drop, Reason: "no_service", Value: d.noService.Load()},
		{Name: drop, Reason: "no_endpoint", Value: d.noEndpoint.Load()},
		{Name: drop, Reason: "no_name", Value: d.unnamed.Load()},
		{Name: drop, Reason: "failed", Value: d.failed.Load()},
	}
}
