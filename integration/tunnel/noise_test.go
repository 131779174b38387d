//go:build linux

package tunnel_test

import (
	"crypto/hmac"
	"crypto/rand"
	"encoding/base64"
	"hash"
	"testing"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/curve25519"
)

// forge makes a handshake initiation to a public key, as far as everybody can
// who knows that key (WireGuard paper, section 5.4.2): it names static as its
// sender, and its timestamp is garbage. A nil static makes that garbage too.
func forge(t *testing.T, to, static []byte) []byte {
	t.Helper()
	msg := make([]byte, 148)
	_, _ = rand.Read(msg)
	copy(msg, []byte{1, 0, 0, 0})
	if static != nil {
		private := make([]byte, 32)
		_, _ = rand.Read(private)
		ephemeral, err := curve25519.X25519(private, curve25519.Basepoint)
		if err != nil {
			t.Fatal(err)
		}
		shared, err := curve25519.X25519(private, to)
		if err != nil {
			t.Fatal(err)
		}
		chain := sum([]byte("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"))
		h := sum(sum(sum(chain, []byte("WireGuard v1 zx2c4 Jason@zx2c4.com")), to), ephemeral)
		chain = extract(extract(chain, ephemeral), []byte{1})
		secret := extract(chain, shared)
		aead, err := chacha20poly1305.New(extract(secret, append(extract(secret, []byte{1}), 2)))
		if err != nil {
			t.Fatal(err)
		}
		copy(msg[8:], ephemeral)
		copy(msg[40:], aead.Seal(nil, make([]byte, 12), static, h))
	}
	mac, err := blake2s.New128(sum([]byte("mac1----"), to))
	if err != nil {
		t.Fatal(err)
	}
	mac.Write(msg[:116])
	copy(msg[116:], mac.Sum(nil))
	clear(msg[132:])
	return msg
}

func sum(parts ...[]byte) []byte {
	h := blake()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

func extract(key, data []byte) []byte {
	m := hmac.New(blake, key)
	m.Write(data)
	return m.Sum(nil)
}

func blake() hash.Hash {
	h, _ := blake2s.New256(nil) // without a key it cannot fail
	return h
}

// rawKey decodes a public key.
func rawKey(t *testing.T, text string) []byte {
	t.Helper()
	k, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(k) != 32 {
		t.Fatalf("key %q: %v", text, err)
	}
	return k
}
