package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// testPair makes a certificate that signs itself.
func testPair(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k})
}

// TestPEMFiles renews a certificate on disk: the old one counts until both files
// are new and fit, and what is wrong meanwhile is told.
func TestPEMFiles(t *testing.T) {
	dir := t.TempDir()
	certPath, keyPath := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	var age time.Duration = 10 * time.Hour
	write := func(path string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		age -= time.Minute
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	p := newPair(certPath, keyPath)
	if _, err := p.get(); err == nil || p.problem() == nil {
		t.Error("files that are not there are no problem")
	}
	cert1, key1 := testPair(t, "one")
	write(certPath, cert1)
	write(keyPath, key1)
	is := func(name string, problem bool) {
		t.Helper()
		c, err := p.get()
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Leaf.Subject.CommonName; got != name || (p.problem() != nil) != problem {
			t.Errorf("certificate %s, problem %v; want %s, %v", got, p.problem(), name, problem)
		}
	}
	is("one", false)
	cert2, key2 := testPair(t, "two")
	write(certPath, cert2)
	is("one", true) // the key is not there yet
	write(keyPath, key2)
	is("two", false)
	if err := os.Remove(keyPath); err != nil {
		t.Fatal(err)
	}
	is("two", true)
	if err := p.problem(); bytes.Contains([]byte(err.Error()), []byte("PRIVATE")) {
		t.Errorf("a key shows: %v", err)
	}

	pool := newPool(certPath)
	if pool.value() == nil {
		t.Error(pool.problem())
	}
	write(certPath, []byte("x"))
	if pool.value() == nil || pool.problem() == nil {
		t.Errorf("a bad file: %v", pool.problem())
	}
	if err := (*pemFiles[int])(nil).problem(); err != nil {
		t.Error(err)
	}
}
