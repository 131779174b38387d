package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"corax/dataplane/key"
)

// connectTimeout bounds the TCP connection, and the talk with a proxy.
const connectTimeout = 10 * time.Second

// DialConfig is what Dial needs.
type DialConfig struct {
	Private key.Private
	Hub     key.Public // whose proof is asked for
	// Addr is the hub's host:port; a name is resolved by the proxy, when there is
	// one.
	Addr string
	// Receive gets what the hub sends, from Run. The datagrams are valid until it
	// returns; it must not block.
	Receive func(c *Conn, datagrams [][]byte)
	// Proxy names the proxy for a URL, nil for none. Zero means the one of the
	// environment as the process started: HTTPS_PROXY and NO_PROXY, in both cases.
	Proxy func(*url.URL) (*url.URL, error)
	// Dial opens TCP connections; zero means net.Dialer's.
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	Counts *Counts // nil means its own
}

// Dial connects to a hub and returns when both ends have proven their keys. The
// caller runs the stream with [Conn.Run], or closes it. Cancelling ctx ends the
// attempt, not the stream. The error matches [ErrRefused] or [ErrImpostor] when
// somebody answered who is not the hub, or does not want us.
func Dial(ctx context.Context, cfg DialConfig) (*Conn, error) {
	switch {
	case cfg.Private.IsZero() || cfg.Hub.IsZero():
		return nil, errors.New("stream: dial: no private key, or no key of the hub")
	case cfg.Receive == nil:
		return nil, errors.New("stream: dial: no Receive")
	}
	if cfg.Counts == nil {
		cfg.Counts = new(Counts)
	}
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	if cfg.Proxy == nil {
		cfg.Proxy = environment
	}
	c, err := dial(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("stream: dial %s: %w", cfg.Addr, err)
	}
	cfg.Counts.dialed.Add(1)
	return c, nil
}

func environment(u *url.URL) (*url.URL, error) {
	return http.ProxyFromEnvironment(&http.Request{URL: u})
}

func dial(ctx context.Context, cfg DialConfig) (*Conn, error) {
	raw, err := connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	c, err := prove(ctx, cfg, raw)
	if err != nil {
		_ = raw.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	return c, nil
}

// connect opens the TCP connection, through the proxy that the address has.
func connect(ctx context.Context, cfg DialConfig) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	proxy, err := cfg.Proxy(&url.URL{Scheme: "https", Host: cfg.Addr})
	if err != nil {
		return nil, errors.New("the proxy in the environment is no URL") // it may hold a password
	}
	if proxy == nil {
		return cfg.Dial(ctx, "tcp", cfg.Addr)
	}
	return connectProxy(ctx, cfg, proxy)
}

// prove does everything after the TCP connection.
func prove(ctx context.Context, cfg DialConfig, raw net.Conn) (*Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := raw.SetDeadline(time.Now().Add(proofTimeout)); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil { // before the deadline was set
		return nil, err
	}
	if u, ok := raw.(*tls.Conn); ok {
		tune(u.NetConn()) // TLS to the proxy
	} else {
		tune(raw)
	}
	c := tls.Client(raw, clientConfig(cfg.Addr))
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	exporter, err := export(c)
	if err != nil {
		return nil, err
	}
	if err := proveClient(c, cfg.Private, cfg.Hub, exporter); err != nil {
		return nil, err
	}
	if !stop() { // the deadline may have been set behind our back
		return nil, ctx.Err()
	}
	if err := raw.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	return newConn(c, raw, cfg.Hub, options{cfg.Counts, cfg.Receive, newStores()}), nil
}
