package kube

import (
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

func caPEM(t *testing.T, name string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestAuthority follows a file that is rotated, and wins over data.
func TestAuthority(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.crt")
	write := func(b []byte, age time.Duration) {
		t.Helper()
		at := time.Now().Add(-age)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	write(caPEM(t, "one"), time.Hour)
	a := &authority{file: path, data: caPEM(t, "other")}
	first, err := a.get()
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := a.get(); again != first {
		t.Error("an unchanged file is read again")
	}
	write(caPEM(t, "two"), time.Minute)
	second, err := a.get()
	if err != nil || second.Equal(first) {
		t.Errorf("a rotated file is not seen: %v", err)
	}
	write([]byte("nothing"), time.Second)
	if _, err := a.get(); err == nil {
		t.Error("a file without certificates is no error")
	}
	if _, err := (&authority{data: caPEM(t, "x")}).get(); err != nil {
		t.Error(err)
	}
	if _, err := (&authority{}).get(); err == nil {
		t.Error("nothing at all is no error")
	}
}
