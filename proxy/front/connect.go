package front

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"

	"corax/proxy"
)

// serveConnect serves a CONNECT, which the API server sends by its egress selector:
//
//	CONNECT edge1:10250 HTTP/1.1
//	Host: 127.0.0.1
func (f *Front) serveConnect(ctx context.Context, a *arrival) {
	r := request{front: kindConnect}
	var c net.Conn = a.Conn
	if _, unix := a.LocalAddr().(*net.UnixAddr); !unix {
		t, user, err := f.connectTLS(ctx, a)
		if err != nil {
			if !errors.Is(err, io.EOF) { // a health check says nothing
				f.refuse(a, r, &proxy.Refusal{Code: proxy.CodeUnauthenticated, Text: "request: no TLS with a client certificate: " + err.Error(), Err: err})
			}
			_ = a.Close()
			return
		}
		c, r.user = &tlsConn{t, a.Conn}, user
	}
	if err := f.connect(ctx, a, c, r); err != nil {
		f.refuse(a, r, err)
		answer(c, "HTTP/1.1", err)
	}
}

func (f *Front) connect(parent context.Context, a *arrival, c net.Conn, r request) error {
	ctx, done := f.streamContext(parent)
	defer done()
	h, read, err := readHead(c)
	if err == nil {
		err = h.connectable()
	}
	if err == nil {
		r.target, r.plain, err = f.connectTarget(h.target)
	}
	if err == nil {
		_, ahead, _ := bytes.Cut(read, []byte("\r\n\r\n"))
		err = f.splice(ctx, a, c, r, ahead, func() error {
			_, err := io.WriteString(c, "HTTP/1.1 200 Connection Established\r\n\r\n")
			return err
		})
	}
	return err
}

func (h head) connectable() error {
	if h.method != "CONNECT" {
		return badHead("only CONNECT is served here, not %s", quoted(h.method))
	}
	if h.body {
		return badHead("a CONNECT has no body")
	}
	return nil
}

// connectTarget reads the authority that a CONNECT asks for. Its Host field means
// nothing: the API server writes 127.0.0.1. plain says that it is an address of the
// cluster: an egress selector sends the calls of webhooks and aggregated APIs here, too.
func (f *Front) connectTarget(authority string) (t proxy.Target, plain bool, err error) {
	host, port, err := parseAuthority(authority)
	if err != nil {
		return proxy.Target{}, false, err
	}
	if port == 0 {
		return proxy.Target{}, false, badHead("CONNECT names no port")
	}
	if f.inCluster(host) {
		return proxy.Target{Node: host, Port: port}, true, nil
	}
	t, err = f.target(host, port)
	return t, false, err
}

// inCluster reports whether a host is an address of the cluster. No node is looked up
// by such a one: it may say that it has the address of somebody's Service.
func (f *Front) inCluster(host string) bool {
	a, err := netip.ParseAddr(host)
	if err != nil || a.Zone() != "" || proxy.CheckAddr(a.Unmap()) != nil {
		return false
	}
	return slices.ContainsFunc(f.cfg.Connect.Cluster, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

// connectTLS takes the handshake and returns who the caller is.
func (f *Front) connectTLS(ctx context.Context, a *arrival) (*tls.Conn, string, error) {
	c := &f.cfg.Connect
	cert, err := c.Certificate()
	if err != nil {
		return nil, "", fmt.Errorf("our certificate: %w", err)
	}
	cas := c.ClientCAs()
	if cas == nil { // to crypto/tls that means all CAs of the host
		return nil, "", errors.New("no CA for callers")
	}
	t := tls.Server(a.Conn, &tls.Config{
		MinVersion: tls.VersionTLS12,
		// With a session taken up again nobody would look at the certificate anew.
		SessionTicketsDisabled: true,
		Certificates:           []tls.Certificate{*cert},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              cas,
		VerifyConnection: func(s tls.ConnectionState) error {
			return c.mayConnect(s.PeerCertificates[0])
		},
	})
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, "", err
	}
	return t, t.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

func (c *ConnectTLS) mayConnect(cert *x509.Certificate) error {
	if len(c.Names) == 0 || slices.Contains(c.Names, cert.Subject.CommonName) {
		return nil
	}
	for _, n := range cert.DNSNames {
		if slices.ContainsFunc(c.Names, func(s string) bool { return strings.EqualFold(s, n) }) {
			return nil
		}
	}
	return fmt.Errorf("certificate of %s, which is not among the callers allowed", quoted(cert.Subject.CommonName))
}
