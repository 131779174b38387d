package main

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"strconv"

	"corax/proxy/inner"
)

// runDialer connects through the agent.
type runDialer struct{ client *client }

var _ inner.Dialer = runDialer{}

// DialTCP implements [inner.Dialer].
func (d runDialer) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return d.stream(ctx, streamQuery("tcp", to))
}

// DialUDP implements [inner.Dialer].
func (d runDialer) DialUDP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return d.datagrams(ctx, streamQuery("udp", to))
}

// DialPing implements [inner.Dialer].
func (d runDialer) DialPing(ctx context.Context, to netip.Addr) (net.Conn, error) {
	return d.datagrams(ctx, url.Values{"network": {"ping"}, "host": {to.String()}})
}

// DialDNS implements [inner.Dialer].
func (d runDialer) DialDNS(ctx context.Context, network string) (net.Conn, error) {
	query := url.Values{"network": {network}, "dns": {"true"}}
	if network == "udp" {
		return d.datagrams(ctx, query)
	}
	return d.stream(ctx, query)
}

func streamQuery(network string, to netip.AddrPort) url.Values {
	return url.Values{"network": {network}, "host": {to.Addr().String()}, "port": {strconv.Itoa(int(to.Port()))}}
}

func (d runDialer) stream(ctx context.Context, query url.Values) (net.Conn, error) {
	s, err := d.client.Stream(ctx, query)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (d runDialer) datagrams(ctx context.Context, query url.Values) (net.Conn, error) {
	s, err := d.client.Stream(ctx, query)
	if err != nil {
		return nil, err
	}
	return newDatagramConn(s), nil
}
