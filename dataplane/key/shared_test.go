package key

import (
	"encoding/hex"
	"testing"
)

// TestSharedSecret has the vectors of RFC 7748 section 6.1.
func TestSharedSecret(t *testing.T) {
	alice := Private{unhex(t, "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")}
	bob := Private{unhex(t, "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")}
	want := unhex(t, "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
	for _, tt := range []struct {
		name string
		own  Private
		peer Public
	}{
		{"alice", alice, unhex(t, "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")},
		{"bob", bob, unhex(t, "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")},
	} {
		if got, err := tt.own.SharedSecret(tt.peer); err != nil || got != want {
			t.Errorf("%s: %x, %v", tt.name, got, err)
		}
	}
}

// TestSharedSecretRefused has what gives no secret: no key of one's own, and the
// points with which every key gives zero.
func TestSharedSecretRefused(t *testing.T) {
	own, err := NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		own  Private
		peer string
	}{
		{"no private key", Private{}, "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"},
		{"zero", own, "0000000000000000000000000000000000000000000000000000000000000000"},
		{"one", own, "0100000000000000000000000000000000000000000000000000000000000000"},
		{"order 8", own, "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"},
		{"p - 1", own, "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"},
	} {
		got, err := tt.own.SharedSecret(unhex(t, tt.peer))
		if err == nil || got != [Size]byte{} {
			t.Errorf("%s: %x, %v; want an error", tt.name, got, err)
		}
	}
}

func unhex(t *testing.T, s string) [Size]byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != Size {
		t.Fatalf("%q: %d bytes, %v", s, len(b), err)
	}
	return [Size]byte(b)
}
