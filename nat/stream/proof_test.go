package stream

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"testing"

	"corax/dataplane/key"
)

// TestMAC fixes the bytes on the wire: HMAC-SHA256 by hand over the X25519 result
// of RFC 7748 section 6.1.
func TestMAC(t *testing.T) {
	alice, err := key.ParsePrivate("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=")
	if err != nil {
		t.Fatal(err)
	}
	bob, err := key.ParsePublic("3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=")
	if err != nil {
		t.Fatal(err)
	}
	secret, err := hex.DecodeString("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
	if err != nil {
		t.Fatal(err)
	}
	exporter := bytes.Repeat([]byte{0xab}, exporterSize)
	for _, r := range []role{"client", "hub"} {
		h := hmac.New(sha256.New, secret)
		h.Write(append(bytes.Clone(exporter), r...))
		got, err := mac(alice, bob, exporter, r)
		if err != nil || !bytes.Equal(got[:], h.Sum(nil)) {
			t.Errorf("%s: %x, %v", r, got, err)
		}
	}
}

// FuzzProof gives a hub anything as proof: only the right one is answered.
func FuzzProof(f *testing.F) {
	own, hub := newPrivate(f), newPrivate(f)
	exporter := make([]byte, exporterSize)
	public := own.Public()
	m, err := mac(own, hub.Public(), exporter, roleClient)
	if err != nil {
		f.Fatal(err)
	}
	good := append(public[:], m[:]...)
	f.Add(good)
	f.Add(good[:proofSize-1])
	f.Add(append(bytes.Clone(good), 1))
	f.Add(make([]byte, proofSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		in := &counting{r: bytes.NewReader(b)}
		rw := struct {
			io.Reader
			io.Writer
		}{in, &out}
		peer, err := proveHub(rw, hub, func(key.Public) bool { return true }, exporter)
		if want := len(b) >= proofSize && bytes.Equal(b[:proofSize], good); want != (err == nil) || want != (out.Len() == macSize) {
			t.Errorf("%x: %v, answered %d bytes", b, err, out.Len())
		}
		if err == nil && peer != own.Public() || in.n > proofSize {
			t.Errorf("peer %v, read %d bytes", peer, in.n)
		}
	})
}
