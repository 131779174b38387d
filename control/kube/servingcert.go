package kube

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// PEM blocks of the file.
const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY"
	pemRequest     = "CERTIFICATE REQUEST"
)

// newRequest makes a key, and a request for a certificate of it.
func newRequest(names []string) (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: ServingSubject, Organization: []string{"system:nodes"}},
		DNSNames: names,
	}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: pemRequest, Bytes: der}), nil
}

func requestName() (string, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("name a certificate request: %w", err)
	}
	return RequestPrefix + hex.EncodeToString(b[:]), nil
}

// certificateOf makes a certificate of what a signer gave for key, and checks that
// it is one that can be used now.
func certificateOf(chain []byte, key *ecdsa.PrivateKey, names []string, now time.Time) (*tls.Certificate, error) {
	c := &tls.Certificate{PrivateKey: key}
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == pemCertificate {
			c.Certificate = append(c.Certificate, block.Bytes)
		}
	}
	if len(c.Certificate) == 0 {
		return nil, errors.New("the signer gave no certificate")
	}
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("the signer's certificate: %w", err)
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, errors.New("the certificate is of another key")
	}
	if !now.Before(leaf.NotAfter) {
		return nil, fmt.Errorf("the certificate lapsed at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	for _, n := range names {
		if err := leaf.VerifyHostname(n); err != nil {
			return nil, fmt.Errorf("the certificate has not all names: %w", err)
		}
	}
	c.Leaf = leaf
	return c, nil
}

// renewAt is when a new certificate is wanted: after two thirds of the life of c,
// and up to a twentieth earlier, by random in [0, 1), so that fronts do not all ask
// at once.
func renewAt(c *x509.Certificate, random float64) time.Time {
	life := c.NotAfter.Sub(c.NotBefore)
	return c.NotBefore.Add(life*2/3 - time.Duration(random*float64(life)/20))
}

// formatServing returns the file of a certificate and its key.
func formatServing(c *tls.Certificate) ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for _, der := range c.Certificate {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der}))
	}
	b.Write(pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: key}))
	return b.Bytes(), nil
}

// parseServing reads the file, which must be of a certificate that can be used now.
func parseServing(b []byte, names []string, now time.Time) (*tls.Certificate, error) {
	var key *ecdsa.PrivateKey
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != pemKey {
			continue
		}
		k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, errors.New("its key cannot be read") // err might quote it
		}
		key, _ = k.(*ecdsa.PrivateKey)
	}
	if key == nil {
		return nil, errors.New("it has no key")
	}
	return certificateOf(b, key, names, now)
}
