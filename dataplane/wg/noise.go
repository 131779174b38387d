package wg

import (
	"crypto/hmac"
	"hash"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/curve25519"

	"corax/dataplane/key"
)

// The parts of a handshake that the bind must understand before wireguard-go
// does (WireGuard paper, sections 5.4.2 and 5.4.4): mac1, and the static key
// inside an initiation.

const (
	noiseConstruction = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
	noiseIdentifier   = "WireGuard v1 zx2c4 Jason@zx2c4.com"
	labelMAC1         = "mac1----"

	offEphemeral = 8
	offStatic    = offEphemeral + key.Size
	endStatic    = offStatic + key.Size + chacha20poly1305.Overhead
	sizeMAC      = blake2s.Size128
)

// macKey is the key of mac1 in messages to one public key.
type macKey [blake2s.Size]byte

func newMACKey(to key.Public) macKey {
	return blake2s.Sum256(append([]byte(labelMAC1), to[:]...))
}

// check reports whether the mac1 of an initiation or response of the right
// length is made with k.
func (k *macKey) check(msg []byte) bool {
	mac2 := len(msg) - sizeMAC
	mac1 := mac2 - sizeMAC
	h, err := blake2s.New128(k[:])
	if err != nil {
		return false // unreachable: the key length is right
	}
	h.Write(msg[:mac1])
	var sum [sizeMAC]byte
	return hmac.Equal(h.Sum(sum[:0]), msg[mac1:mac2])
}

// opener opens initiations that are meant for one private key. It holds that
// key, and is safe for concurrent use.
type opener struct {
	private  [key.Size]byte
	mac1     macKey
	chain    [blake2s.Size]byte
	hash     [blake2s.Size]byte // with our public key mixed in
	identity key.Public
}

func newOpener(private key.Private) *opener {
	o := &opener{private: private.Bytes(), identity: private.Public()}
	o.mac1 = newMACKey(o.identity)
	o.chain = blake2s.Sum256([]byte(noiseConstruction))
	o.hash = mixHash(o.chain, []byte(noiseIdentifier))
	o.hash = mixHash(o.hash, o.identity[:])
	return o
}

// static returns the initiator's public key of an initiation of the right
// length, and false when it does not decrypt. Whoever knows our public key can
// make one with any static key, so this names a peer, it does not prove it.
// It costs one X25519.
func (o *opener) static(msg []byte) (key.Public, bool) {
	ephemeral := msg[offEphemeral:offStatic]
	h := mixHash(o.hash, ephemeral)
	chain, _ := kdf2(o.chain, ephemeral)
	shared, err := curve25519.X25519(o.private[:], ephemeral)
	if err != nil {
		return key.Public{}, false // a point of low order
	}
	_, secret := kdf2(chain, shared)
	aead, err := chacha20poly1305.New(secret[:])
	if err != nil {
		return key.Public{}, false // unreachable: the key length is right
	}
	var nonce [chacha20poly1305.NonceSize]byte
	plain, err := aead.Open(nil, nonce[:], msg[offStatic:endStatic], h[:])
	if err != nil || len(plain) != key.Size {
		return key.Public{}, false
	}
	return key.Public(plain), true
}

func mixHash(h [blake2s.Size]byte, data []byte) [blake2s.Size]byte {
	return blake2s.Sum256(append(h[:], data...))
}

// kdf2 is HKDF with HMAC-BLAKE2s and two outputs; the first alone is the
// paper's KDF1.
func kdf2(chain [blake2s.Size]byte, input []byte) (a, b [blake2s.Size]byte) {
	prk := hmacBlake(chain[:], input)
	a = hmacBlake(prk[:], []byte{1})
	b = hmacBlake(prk[:], append(a[:], 2))
	return a, b
}

func hmacBlake(k, data []byte) (sum [blake2s.Size]byte) {
	m := hmac.New(newBlake, k)
	m.Write(data)
	m.Sum(sum[:0])
	return sum
}

func newBlake() hash.Hash {
	h, err := blake2s.New256(nil)
	if err != nil {
		return nil // unreachable: there is no key to refuse
	}
	return h
}
