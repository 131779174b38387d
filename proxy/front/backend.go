package front

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"corax/proxy"
)

// nodeTLSWithin bounds the TLS handshake with a node.
const nodeTLSWithin = 10 * time.Second

// nodeUser is how the certificate of a kubelet begins: the signer of the cluster
// gives one of these to that node alone.
const nodeUser = "system:node:"

// connectNode dials the node of a request, and speaks TLS with it where its port
// does. What counts its bytes comes back, too.
func (f *Front) connectNode(ctx context.Context, s *stream, https bool) (net.Conn, *countedConn, error) {
	raw, err := s.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	counted := &countedConn{Conn: raw, s: s, stalls: stallWatch{count: &f.cfg.Counters.Stalls}}
	if !https {
		return counted, counted, nil
	}
	node := s.live.Info().Target.Node
	cfg, err := f.nodeTLS(node)
	if err != nil {
		_ = raw.Close()
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, nodeTLSWithin)
	defer cancel()
	t := tls.Client(counted, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, nil, &proxy.Refusal{
			Code: proxy.CodeBackend, Text: fmt.Sprintf("node: TLS with node %s: %v", quoted(node), err), Err: err,
		}
	}
	return &tlsConn{t, raw}, counted, nil
}

// nodeTLS verifies that a node is the one that is meant. Addresses may occur twice
// in a cluster, so none are verified unless the node's Hostname address is one, and
// a certificate of the cluster's signer must be of this very node.
func (f *Front) nodeTLS(node string) (*tls.Config, error) {
	var cas *x509.CertPool
	if f.cfg.NodeCAs != nil {
		cas = f.cfg.NodeCAs()
	}
	if cas == nil { // to crypto/tls that means all CAs of the host
		return nil, proxy.Refuse(proxy.CodeBackend, "node: no kubelet CA is configured, so TLS ports are reached by the node's own name only")
	}
	hostname := ""
	if f.cfg.Hostname != nil {
		hostname = f.cfg.Hostname(node)
	}
	names := []string{node, cmp.Or(hostname, node)}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: names[1],
		// VerifyConnection does all of it: crypto/tls would take one name only.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			return verifyNode(s.PeerCertificates, cas, node, names)
		},
	}, nil
}

func verifyNode(chain []*x509.Certificate, cas *x509.CertPool, node string, names []string) error {
	if len(chain) == 0 {
		return errors.New("no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	leaf := chain[0]
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: cas, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}); err != nil {
		return err
	}
	if name, ok := strings.CutPrefix(leaf.Subject.CommonName, nodeUser); ok && name != node {
		return fmt.Errorf("the certificate is that of node %s", quoted(name))
	}
	if slices.ContainsFunc(names, func(n string) bool { return leaf.VerifyHostname(n) == nil }) {
		return nil
	}
	return fmt.Errorf("the certificate is for none of %q", slices.Compact(names))
}

// backendKey finds what dials for a request in its context.
type backendKey struct{}

// newBackend makes the transport of plain requests. Each request has a connection
// of its own, made by what its context holds.
func newBackend() *http.Transport {
	return &http.Transport{
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHead,
		WriteBufferSize:        4 << 10,
		ReadBufferSize:         4 << 10,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			dial, ok := ctx.Value(backendKey{}).(func() (net.Conn, error))
			if !ok {
				return nil, errors.New("front: a request without a node")
			}
			return dial()
		},
	}
}

// countedConn counts the bytes of a stream whose HTTP is read here, as they are on
// the way: with TLS where the node speaks it.
type countedConn struct {
	net.Conn
	s      *stream
	off    atomic.Bool
	stalls stallWatch
}

// Read counts bytes from the node.
func (c *countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && !c.off.Load() {
		c.s.live.Down.Add(uint64(n))
		c.s.front.cfg.Counters.Down.Add(uint64(n))
		c.s.live.Passed(true, n)
		c.s.answered()
	}
	return n, err
}

// Write counts bytes to the node.
func (c *countedConn) Write(b []byte) (int, error) {
	defer c.stalls.watch()()
	counts := !c.off.Load()
	if counts {
		c.s.live.Passed(false, len(b))
	}
	n, err := c.Conn.Write(b)
	if counts {
		c.s.live.Up.Add(uint64(n))
		c.s.front.cfg.Counters.Up.Add(uint64(n))
	}
	return n, err
}
