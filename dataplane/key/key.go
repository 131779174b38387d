package key

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/crypto/blake2s"
)

// Size is the length of every key in bytes.
const Size = 32

// Private is a Curve25519 private key, clamped. The zero value is no key.
//
// It prints redacted with every verb and refuses to be marshalled; WireGuard's
// UAPI and the key file get it from [Private.Bytes].
type Private struct{ b [Size]byte }

// NewPrivate makes a random private key.
func NewPrivate() (Private, error) {
	var k Private
	if _, err := rand.Read(k.b[:]); err != nil {
		return Private{}, fmt.Errorf("key: read random: %w", err)
	}
	k.clamp()
	return k, nil
}

// ParsePrivate parses the base64 form that `wg genkey` prints.
func ParsePrivate(s string) (Private, error) {
	b, err := parse(s)
	if err != nil {
		return Private{}, fmt.Errorf("key: private key: %w", err)
	}
	k := Private{b}
	k.clamp()
	return k, nil
}

func (k *Private) clamp() {
	k.b[0] &= 248
	k.b[31] = k.b[31]&127 | 64
}

// IsZero reports whether k is no key.
func (k Private) IsZero() bool { return k == Private{} }

// Bytes returns a copy of the secret bytes.
func (k Private) Bytes() [Size]byte { return k.b }

// Public returns the public half. Of the zero Private it is the zero Public.
func (k Private) Public() Public {
	if k.IsZero() {
		return Public{}
	}
	priv, err := ecdh.X25519().NewPrivateKey(k.b[:])
	if err != nil {
		return Public{} // unreachable: the length is right
	}
	return Public(priv.PublicKey().Bytes())
}

// SharedSecret returns X25519 of k and a peer's public key (RFC 7748), which the
// peer gets from its private key and the public half of k. It is as secret as
// the keys: derive from it, never send it. A zero k, and a public key of low
// order, with which everybody gets the same result, are errors.
func (k Private) SharedSecret(peer Public) ([Size]byte, error) {
	if k.IsZero() {
		return [Size]byte{}, errors.New("key: shared secret: no private key")
	}
	private, err := ecdh.X25519().NewPrivateKey(k.b[:])
	if err != nil {
		return [Size]byte{}, fmt.Errorf("key: shared secret: %w", err)
	}
	public, err := ecdh.X25519().NewPublicKey(peer[:])
	if err != nil {
		return [Size]byte{}, fmt.Errorf("key: shared secret: %w", err)
	}
	secret, err := private.ECDH(public)
	if err != nil {
		return [Size]byte{}, fmt.Errorf("key: shared secret: %w", err)
	}
	return [Size]byte(secret), nil
}

// String returns a fixed text, so that no log can hold the key.
func (k Private) String() string { return "[private key]" }

// GoString is String, for %#v.
func (k Private) GoString() string { return k.String() }

// Format writes the fixed text for every verb, %x included.
func (k Private) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.String())) }

// MarshalText always fails: a private key has no place in a log or a document.
func (k Private) MarshalText() ([]byte, error) {
	return nil, errors.New("key: a private key is not marshalled")
}

// Public is a Curve25519 public key. It is comparable; the zero value is no key.
type Public [Size]byte

// ParsePublic parses base64, as in Endpoint.config["publicKey"]. The all-zero
// key is refused: nothing can have it, and X25519 with it is no secret.
func ParsePublic(s string) (Public, error) {
	b, err := parse(s)
	if err != nil {
		return Public{}, fmt.Errorf("key: public key: %w", err)
	}
	if b == ([Size]byte{}) {
		return Public{}, errors.New("key: public key: all bytes are zero")
	}
	return b, nil
}

// IsZero reports whether k is no key.
func (k Public) IsZero() bool { return k == Public{} }

// String returns the base64 form; of the zero value the empty string.
func (k Public) String() string {
	if k.IsZero() {
		return ""
	}
	return base64.StdEncoding.EncodeToString(k[:])
}

// MarshalText returns the base64 form.
func (k Public) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText parses the base64 form; empty text is the zero key.
func (k *Public) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*k = Public{}
		return nil
	}
	p, err := ParsePublic(string(text))
	if err != nil {
		return err
	}
	*k = p
	return nil
}

// Less orders keys by their bytes: the lower key initiates, and wins ties.
func (k Public) Less(other Public) bool { return string(k[:]) < string(other[:]) }

// OverlayPrefix is the prefix of every overlay address.
var OverlayPrefix = netip.MustParsePrefix("fd63:6f72:6178::/48")

// Overlay returns the overlay address of a peer: OverlayPrefix and the first 80
// bits of BLAKE2s-256 of its public key. Of the zero key it is the zero Addr.
func (k Public) Overlay() netip.Addr {
	if k.IsZero() {
		return netip.Addr{}
	}
	sum := blake2s.Sum256(k[:])
	a := OverlayPrefix.Addr().As16()
	copy(a[6:], sum[:10])
	return netip.AddrFrom16(a)
}

// Preshared is a WireGuard pre-shared key. The zero value means none. It prints
// redacted.
type Preshared struct{ b [Size]byte }

// PresharedFromSecret derives the key that Raven's WireGuard driver uses:
// SHA-256 of the secret's bytes. An empty secret gives the zero value.
func PresharedFromSecret(secret []byte) Preshared {
	if len(secret) == 0 {
		return Preshared{}
	}
	return Preshared{sha256.Sum256(secret)}
}

// IsZero reports whether there is no pre-shared key.
func (k Preshared) IsZero() bool { return k == Preshared{} }

// Bytes returns a copy of the secret bytes.
func (k Preshared) Bytes() [Size]byte { return k.b }

// String returns a fixed text, so that no log can hold the key.
func (k Preshared) String() string {
	if k.IsZero() {
		return ""
	}
	return "[preshared key]"
}

// GoString is String, for %#v.
func (k Preshared) GoString() string { return k.String() }

// Format writes the fixed text for every verb, %x included.
func (k Preshared) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.String())) }

// MarshalText always fails: a secret has no place in a log or a document.
func (k Preshared) MarshalText() ([]byte, error) {
	return nil, errors.New("key: a pre-shared key is not marshalled")
}

func parse(s string) ([Size]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return [Size]byte{}, errors.New("not base64")
	}
	if len(b) != Size {
		return [Size]byte{}, fmt.Errorf("%d bytes, want %d", len(b), Size)
	}
	return [Size]byte(b), nil
}
