package main

import (
	"context"
	"crypto/tls"
	"net"
	"time"
)

// knocked is what came of a connection to a front.
type knocked struct {
	dial    error    // why there is no connection; then nothing else is known
	alert   byte     // of TLS, before any certificate; 0: none
	err     error    // why TLS failed otherwise
	subject string   // of the certificate
	names   []string // DNS names in it
}

// knock connects and begins TLS, without believing anybody.
func knock(ctx context.Context, address, name string) knocked {
	d := net.Dialer{Timeout: stepTimeout}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return knocked{dial: err}
	}
	defer func() { _ = conn.Close() }()
	return greet(ctx, conn, name)
}

// greet begins TLS with who is at the other end of a connection, without believing
// him.
func greet(ctx context.Context, conn net.Conn, name string) knocked {
	first := &firstBytes{Conn: conn}
	t := tls.Client(first, &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: name,
		// Only the certificate is looked at: no request follows.
		InsecureSkipVerify: true,
	})
	// A front gives a path that has to be looked for 20 s.
	ctx, cancel := context.WithTimeout(ctx, 3*stepTimeout)
	defer cancel()
	_ = conn.SetDeadline(time.Now().Add(3 * stepTimeout))
	if err := t.HandshakeContext(ctx); err != nil {
		return knocked{alert: first.alert(), err: err}
	}
	c := t.ConnectionState().PeerCertificates[0]
	return knocked{subject: c.Subject.CommonName, names: c.DNSNames}
}

// firstBytes keeps the first bytes that come: an alert in the clear is all that a
// front says, and crypto/tls tells it in words only.
type firstBytes struct {
	net.Conn
	seen []byte
}

// Read notes what it reads.
func (f *firstBytes) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	if room := 7 - len(f.seen); room > 0 {
		f.seen = append(f.seen, b[:min(n, room)]...)
	}
	return n, err
}

// alert returns the description of a fatal alert that came first; 0: none did.
func (f *firstBytes) alert() byte {
	if len(f.seen) < 7 || f.seen[0] != 21 || f.seen[5] != 2 {
		return 0
	}
	return f.seen[6]
}
