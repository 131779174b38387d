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
	// DNS is the cluster's name server, in a subnet of another domain; zero means
	// that names are refused.
	DNS netip.AddrPort
}

// Dialer connects with other domains. Its methods may be called from several
// goroutines at once.
type Dialer struct {
	cfg      Config
	log      *slog.Logger
	resolver net.Resolver

	dialled, forbidden, unnamed, failed atomic.Uint64
}

// NewDialer makes a Dialer.
func NewDialer(cfg Config) (*Dialer, error) {
	if cfg.Network == nil || cfg.Reach == nil {
		return nil, errors.New("outbound: no network, or nobody knows what it reaches")
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
	if err := d.Check(d.cfg.DNS.Addr()); err != nil {
		return nil, fmt.Errorf("name server %s: %w", d.cfg.DNS, err)
	}
	if strings.HasPrefix(network, "udp") {
		return d.cfg.Network.DialUDP(ctx, d.cfg.DNS)
	}
	return d.cfg.Network.DialTCP(ctx, d.cfg.DNS)
}

// Check says why an address is not dialled; nil: it is. A refusal is counted.
func (d *Dialer) Check(a netip.Addr) error {
	a = a.Unmap()
	if a.IsValid() && a.Zone() == "" && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsMulticast() && !a.IsUnspecified() && d.cfg.Reach(a) {
		return nil
	}
	d.forbidden.Add(1)
	return fmt.Errorf("%s: %w", a, ErrForbidden)
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
		return nil, errors.New("no --cluster-dns is given")
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
	return d.dial(ctx, host, port, d.cfg.Network.DialTCP)
}

// DialUDP makes a socket that is connected with a port of a host.
func (d *Dialer) DialUDP(ctx context.Context, host string, port uint16) (net.Conn, error) {
	return d.dial(ctx, host, port, d.cfg.Network.DialUDP)
}

// ListenUDP makes a socket that may send to every address of a family. Whoever
// sends asks Check.
func (d *Dialer) ListenUDP(v6 bool) (net.PacketConn, error) { return d.cfg.Network.ListenUDP(v6) }

func (d *Dialer) dial(ctx context.Context, host string, port uint16, dial func(context.Context, netip.AddrPort) (net.Conn, error)) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	addrs, err := d.Addrs(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("outbound: %w", err)
	}
	for i, a := range addrs {
		// What is left is shared by the addresses that are left.
		part, cancel := ctx, context.CancelFunc(func() {})
		if end, ok := ctx.Deadline(); ok && i < len(addrs)-1 {
			part, cancel = context.WithTimeout(ctx, time.Until(end)/time.Duration(len(addrs)-i))
		}
		var c net.Conn
		c, err = dial(part, netip.AddrPortFrom(a, port))
		cancel()
		if err == nil {
			d.dialled.Add(1)
			return c, nil
		}
	}
	d.failed.Add(1)
	return nil, fmt.Errorf("outbound: %w", err)
}

// Counters returns the counters of the Dialer.
func (d *Dialer) Counters() []dataplane.Counter {
	const drop = "outbound_drop_total"
	return []dataplane.Counter{
		{Name: "outbound_dialled_total", Value: d.dialled.Load()},
		{Name: drop, Reason: "forbidden", Value: d.forbidden.Load()},
		{Name: drop, Reason: "no_name", Value: d.unnamed.Load()},
		{Name: drop, Reason: "failed", Value: d.failed.Load()},
	}
}
