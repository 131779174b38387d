package outbound

import (
	"context"
	"fmt"
	"net"
	"net/netip"
)

// DialPing makes a connection that pings an address: one of another domain, or of those
// that only answer pings. Each of its messages is a sequence number in two bytes,
// big-endian, and a payload: see [Config]. Names are not looked up.
func (d *Dialer) DialPing(ctx context.Context, host string) (net.Conn, error) {
	a, err := netip.ParseAddr(host)
	if err != nil {
		d.unnamed.Add(1)
		return nil, fmt.Errorf("outbound: ping: %s: %w: not an address", host, ErrNoName)
	}
	a = a.Unmap()
	if d.cfg.Ping == nil || !d.reachable(a) && (a.Zone() != "" || d.cfg.Pingable == nil || !d.cfg.Pingable(a)) {
		d.forbidden.Add(1)
		return nil, fmt.Errorf("outbound: ping: %s: %w", a, ErrForbidden)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := d.cfg.Ping(ctx, a)
	if err != nil {
		d.failed.Add(1)
		return nil, fmt.Errorf("outbound: ping: %w", err)
	}
	d.dialled.Add(1)
	return c, nil
}
