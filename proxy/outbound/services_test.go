package outbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// choosy refuses connections with some addresses, and notes what was dialled.
type choosy struct {
	tunnel
	refused map[netip.AddrPort]bool

	mu  sync.Mutex
	all []string
}

func (n *choosy) note(network string, to netip.AddrPort) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, network+" "+to.String())
	if n.refused[to] {
		return fmt.Errorf("dial %s: %w", to, syscall.ECONNREFUSED)
	}
	return nil
}

func (n *choosy) DialTCP(_ context.Context, to netip.AddrPort) (net.Conn, error) {
	if err := n.note("tcp", to); err != nil {
		return nil, err
	}
	c, far := net.Pipe()
	_ = far.Close()
	return c, nil
}

func (n *choosy) DialUDP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if to.Port() == 5353 {
		return n.tunnel.DialUDP(ctx, netip.AddrPortFrom(to.Addr(), 53))
	}
	if err := n.note("udp", to); err != nil {
		return nil, err
	}
	return n.DialTCP(ctx, to)
}

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestServices(t *testing.T) {
	endpoints := map[string][]netip.AddrPort{
		"tcp 10.96.0.1:80":    {at("10.2.0.1:8080")},
		"tcp 10.96.0.2:80":    {at("10.2.0.1:8080"), at("10.2.0.66:8080"), at("10.2.0.67:8080")},
		"tcp 10.96.0.3:80":    {at("10.2.0.66:8080"), at("10.2.0.67:8080")},
		"tcp 10.96.0.4:80":    {},
		"tcp 10.96.0.5:80":    {at("127.0.0.1:80"), at("169.254.169.254:80"), at("10.3.0.1:80")},
		"tcp 10.96.0.6:80":    {at("127.0.0.1:80"), at("10.2.0.1:8080")},
		"udp 10.96.0.1:53":    {at("10.2.0.1:5300")},
		"udp 10.96.0.10:53":   {at("10.2.0.53:5353")},
		"tcp [fd00:96::1]:80": {at("10.2.0.1:8080")},
	}
	dns := &tunnel{dns: serveDNS(t, map[string][]string{
		"web.shop.svc.cluster.local": {"10.96.0.1"}, "head.shop.svc.cluster.local": {"10.2.0.1", "10.2.0.66"},
		"evil.shop.svc.cluster.local": {"10.97.0.1"},
	})}
	for _, tt := range []struct {
		name, network, host string
		port                uint16
		dialled             string // one of these at least; empty: nothing
		counter             string
		err                 error
	}{
		{"an endpoint", "tcp", "10.96.0.1", 80, "10.2.0.1:8080", "outbound_service_total dialled", nil},
		{"mapped", "tcp", "::ffff:10.96.0.1", 80, "10.2.0.1:8080", "outbound_service_total dialled", nil},
		{"UDP", "udp", "10.96.0.1", 53, "10.2.0.1:5300", "outbound_service_total dialled", nil},
		{"a name, over a Service of DNS", "tcp", "web.shop.svc.cluster.local", 80, "10.2.0.1:8080", "outbound_service_total dialled", nil},
		{"a headless name", "tcp", "head.shop.svc.cluster.local", 80, "10.2.0.1:80", "outbound_dialled_total ", nil},
		{"of three one answers", "tcp", "10.96.0.2", 80, "10.2.0.1:8080", "outbound_service_total dialled", nil},
		{"none answers", "tcp", "10.96.0.3", 80, "10.2.0.66:8080", "outbound_service_total next", syscall.ECONNREFUSED},
		{"none ready", "tcp", "10.96.0.4", 80, "", "outbound_drop_total no_endpoint", ErrNoService},
		{"endpoints elsewhere", "tcp", "10.96.0.5", 80, "", "outbound_drop_total no_endpoint", ErrNoService},
		{"one of them elsewhere", "tcp", "10.96.0.6", 80, "10.2.0.1:8080", "outbound_service_total dialled", nil},
		{"no such port", "tcp", "10.96.0.1", 81, "", "outbound_drop_total no_service", ErrNoService},
		{"of the other protocol", "udp", "10.96.0.1", 80, "", "outbound_drop_total no_service", ErrNoService},
		{"outside", "tcp", "10.97.0.1", 80, "", "outbound_drop_total forbidden", ErrForbidden},
		{"a name of one outside", "tcp", "evil.shop.svc.cluster.local", 80, "", "outbound_drop_total forbidden", ErrForbidden},
		{"of the other family", "tcp", "fd00:96::1", 80, "10.2.0.1:8080", "outbound_service_total dialled", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := &choosy{refused: map[netip.AddrPort]bool{at("10.2.0.66:8080"): true, at("10.2.0.67:8080"): true}}
			n.tunnel.dns = dns.dns
			d, err := NewDialer(Config{
				Network: n, Reach: pods.Contains, DNS: at("10.96.0.10:53"),
				ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:96::/112")},
				Endpoints: func(network string, to netip.AddrPort) ([]netip.AddrPort, error) {
					list, ok := endpoints[network+" "+to.String()]
					if !ok {
						return nil, errors.New("no such Service")
					}
					return list, nil
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			dial := d.DialTCP
			if tt.network == "udp" {
				dial = d.DialUDP
			}
			c, err := dial(t.Context(), tt.host, tt.port)
			if c != nil {
				_ = c.Close()
			}
			if !errors.Is(err, tt.err) || (err == nil) != (c != nil) {
				t.Errorf("%v, want %v", err, tt.err)
			}
			all := strings.Join(n.all, ", ")
			if tt.dialled == "" && all != "" || !strings.Contains(all, tt.dialled) {
				t.Errorf("dialled %s, want %q", all, tt.dialled)
			}
			count := uint64(0)
			for _, k := range d.Counters() {
				if k.Name+" "+k.Reason == tt.counter {
					count = k.Value
				}
			}
			if count == 0 {
				t.Errorf("%s is zero: %v", tt.counter, d.Counters())
			}
		})
	}
}

// TestServicesShuffle: each of the endpoints comes first some time, which one that
// always took the first would not do.
func TestServicesShuffle(t *testing.T) {
	list := []netip.AddrPort{at("10.2.0.1:80"), at("10.2.0.2:80"), at("10.2.0.3:80")}
	d, err := NewDialer(Config{
		Network: &tunnel{}, Reach: pods.Contains, ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
		Endpoints: func(string, netip.AddrPort) ([]netip.AddrPort, error) { return list, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	first := map[netip.AddrPort]int{}
	for range 300 {
		got, err := d.Targets(t.Context(), "tcp", at("10.96.0.1:80"))
		if err != nil || len(got) != len(list) {
			t.Fatal(got, err)
		}
		first[got[0]]++
	}
	if len(first) != len(list) {
		t.Errorf("first were %v", first)
	}
	if _, err := NewDialer(Config{Network: &tunnel{}, Reach: pods.Contains, ServiceCIDRs: []netip.Prefix{pods}}); err == nil {
		t.Error("a dialer without anybody who knows the Services")
	}
}
