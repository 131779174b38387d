package outbound

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// ErrNoService means that the address of a Service leads nowhere: there is none with
// that port, or it has no endpoint that is ready and in a subnet of another domain.
var ErrNoService = errors.New("no endpoint behind the address of a Service")

// isService reports whether an address is that of a Service.
func (d *Dialer) isService(a netip.Addr) bool {
	for _, p := range d.cfg.ServiceCIDRs {
		if p.Contains(a.Unmap()) {
			return true
		}
	}
	return false
}

// Targets returns what is dialled for an address and port of "tcp" or "udp": that
// address itself, or the endpoints of a Service in an order of chance, or of its session
// affinity: then the first one is that of the client of ctx from now on. Endpoints are
// what others wrote into the API, so each is checked as an address that a program
// names. Its errors are [ErrForbidden] and [ErrNoService], counted.
func (d *Dialer) Targets(ctx context.Context, network string, at netip.AddrPort) ([]netip.AddrPort, error) {
	list, sticky, err := d.targets(ctx, network, at)
	if err == nil {
		d.kept(sticky, list[0])
	}
	return list, err
}

// stickiness is where it is kept which endpoint a client was led to, and for how long;
// zero: nowhere.
type stickiness struct {
	affinityKey
	timeout time.Duration
}

func (d *Dialer) kept(s stickiness, to netip.AddrPort) {
	if s.timeout > 0 {
		d.affinities.keep(time.Now(), s.affinityKey, to, s.timeout)
	}
}

func (d *Dialer) targets(ctx context.Context, network string, at netip.AddrPort) ([]netip.AddrPort, stickiness, error) {
	var s stickiness
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	if !d.isService(at.Addr()) {
		return []netip.AddrPort{at}, s, d.Check(at.Addr())
	}
	all, err := d.cfg.Endpoints(network, at)
	if err != nil {
		d.noService.Add(1)
		return nil, s, fmt.Errorf("%s/%s: %w: %w", network, at, ErrNoService, err)
	}
	var out []netip.AddrPort
	for _, e := range all {
		if d.reachable(e.Addr()) {
			out = append(out, netip.AddrPortFrom(e.Addr().Unmap(), e.Port()))
		}
	}
	if len(out) == 0 {
		d.noEndpoint.Add(1)
		return nil, s, fmt.Errorf("%s/%s: %w: %d are ready, none of them in a subnet of another domain", network, at, ErrNoService, len(all))
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	if d.cfg.Affinity != nil {
		if s.timeout = d.cfg.Affinity(network, at); s.timeout > 0 {
			s.affinityKey = affinityKey{clientOf(ctx), network, at}
			d.affinities.prefer(time.Now(), s.affinityKey, out)
		}
	}
	return out[:min(len(out), maxTried)], s, nil
}

// dialAny connects with the first of addresses and their targets that answers.
func (d *Dialer) dialAny(ctx context.Context, network string, addrs []netip.Addr, port uint16) (net.Conn, error) {
	var all []target
	var err error
	for _, a := range addrs {
		var list []netip.AddrPort
		var sticky stickiness
		if list, sticky, err = d.targets(ctx, network, netip.AddrPortFrom(a, port)); err != nil {
			continue
		}
		for i, t := range list {
			all = append(all, target{t, d.isService(a), i > 0, sticky})
		}
	}
	all = all[:min(len(all), maxTried)]
	for i, t := range all {
		// What is left is shared by the targets that are left.
		part, cancel := ctx, context.CancelFunc(func() {})
		if end, ok := ctx.Deadline(); ok && i < len(all)-1 {
			part, cancel = context.WithTimeout(ctx, time.Until(end)/time.Duration(len(all)-i))
		}
		if t.next {
			d.next.Add(1)
		}
		var c net.Conn
		if c, err = d.dialOne(part, network, t.at); err == nil {
			cancel()
			if t.service {
				d.toService.Add(1)
				d.kept(t.sticky, t.at)
			}
			return c, nil
		}
		cancel()
	}
	return nil, err
}

// target is one address to dial.
type target struct {
	at      netip.AddrPort
	service bool // it stands for a Service
	next    bool // another endpoint of that was tried before
	sticky  stickiness
}

func (d *Dialer) dialOne(ctx context.Context, network string, at netip.AddrPort) (net.Conn, error) {
	if network == "udp" {
		return d.cfg.Network.DialUDP(ctx, at)
	}
	return d.cfg.Network.DialTCP(ctx, at)
}
