package stream

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"time"
)

// baseConfig is what both ends share. X25519 alone keeps the ClientHello in one
// packet, which more middleboxes pass; the packets inside are WireGuard's. One
// record per write, since a write is as many datagrams as are waiting.
func baseConfig() *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		CurvePreferences:            []tls.CurveID{tls.X25519},
		DynamicRecordSizingDisabled: true,
	}
}

// clientConfig verifies nothing: the proof after the handshake does. The name is
// only there for proxies that look at it.
func clientConfig(addr string) *tls.Config {
	c := baseConfig()
	c.InsecureSkipVerify = true
	if host, _, err := net.SplitHostPort(addr); err == nil {
		c.ServerName = host
	}
	return c
}

// serverConfig has a certificate for this run of the agent, valid at any time:
// edge boxes boot with wrong clocks. Nothing is resumed, so that every stream
// has an exporter of its own.
func serverConfig() (*tls.Config, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "corax"},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 section 4.1.2.5
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	c := baseConfig()
	c.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}}
	c.SessionTicketsDisabled = true
	return c, nil
}
