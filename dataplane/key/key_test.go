package key

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
)

// Alice's pair of RFC 7748 section 6.1; `wg pubkey` agrees.
const (
	alicePrivate = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo="
	alicePublic  = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
)

func mustPrivate(t *testing.T, s string) Private {
	t.Helper()
	k, err := ParsePrivate(s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestPublicOfKnownKey(t *testing.T) {
	if got := mustPrivate(t, alicePrivate).Public().String(); got != alicePublic {
		t.Errorf("public key %s, want %s", got, alicePublic)
	}
	if got := (Private{}).Public(); !got.IsZero() {
		t.Errorf("the zero key has a public half: %v", got)
	}
}

func TestNewPrivateIsClampedAndFresh(t *testing.T) {
	seen := map[Private]bool{}
	for range 64 {
		k, err := NewPrivate()
		if err != nil {
			t.Fatal(err)
		}
		b := k.Bytes()
		if b[0]&7 != 0 || b[31]&0x80 != 0 || b[31]&0x40 == 0 {
			t.Errorf("not clamped: first byte %#x, last %#x", b[0], b[31])
		}
		if seen[k] {
			t.Error("the same key twice")
		}
		seen[k] = true
	}
}

// The wanted addresses were computed with Python's hashlib.blake2s.
func TestOverlay(t *testing.T) {
	for pub, want := range map[string]string{
		alicePublic: "fd63:6f72:6178:156c:329c:9ca9:dea7:d5cd",
		"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=": "fd63:6f72:6178:869b:3b89:c483:1cd3:55bd",
	} {
		k, err := ParsePublic(pub)
		if err != nil {
			t.Fatal(err)
		}
		got := k.Overlay()
		if got != netip.MustParseAddr(want) {
			t.Errorf("%s: overlay %v, want %s", pub, got, want)
		}
		if !OverlayPrefix.Contains(got) {
			t.Errorf("%v is outside of %v", got, OverlayPrefix)
		}
	}
	if (Public{}).Overlay().IsValid() {
		t.Error("the zero key has an overlay address")
	}
}

func TestPresharedFromSecret(t *testing.T) {
	// printf openyurt-raven | sha256sum
	const want = "1ed338381f508972c295805d2551ca782250c315e859f64e24831ffff3b95cbb"
	b := PresharedFromSecret([]byte("openyurt-raven")).Bytes()
	if got := hex.EncodeToString(b[:]); got != want {
		t.Errorf("pre-shared key %s, want %s", got, want)
	}
	if !PresharedFromSecret(nil).IsZero() {
		t.Error("no secret gives a key")
	}
}

func TestParseRefuses(t *testing.T) {
	zero := strings.Repeat("A", 43) + "="
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "0 bytes"},
		{"not base64", "!" + alicePublic[1:], "not base64"},
		{"url alphabet", strings.ReplaceAll(alicePublic, "/", "_"), "not base64"},
		{"short", "AAAA", "3 bytes"},
		{"long", "AAAA" + alicePublic, "35 bytes"},
		{"no padding", strings.TrimSuffix(alicePublic, "="), "not base64"},
		{"bits after the end", alicePublic[:42] + "p=", "not base64"},
		{"zero", zero, "zero"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, err := ParsePublic(tt.text)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			if !k.IsZero() {
				t.Errorf("a key beside the error: %v", k)
			}
			if _, err := ParsePrivate(tt.text); err != nil && tt.text != "" && strings.Contains(err.Error(), tt.text) {
				t.Errorf("the error shows the text: %v", err)
			}
		})
	}
}

// secret is what must not be seen of a key: some run of its bytes, in any form.
func shows(out string, b [Size]byte) bool {
	decimal := strings.Trim(fmt.Sprint(b[:4]), "[]")
	return strings.Contains(strings.ToLower(out), hex.EncodeToString(b[:4])) ||
		strings.Contains(out, decimal) || strings.Contains(out, string(b[:4]))
}

func TestSecretsPrintRedacted(t *testing.T) {
	private := mustPrivate(t, alicePrivate)
	preshared := PresharedFromSecret([]byte("hush"))
	type holder struct {
		K Private
		P *Private
		S Preshared
	}
	held := holder{private, &private, preshared}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%c", "%b", "%o", "%U", "%t", "%T %[1]v"} {
		for name, v := range map[string]any{
			"private": private, "pointer": &private, "preshared": preshared, "slice": []Private{private}, "map": map[string]Preshared{"k": preshared},
			"struct": struct{ K Private }{private},
		} {
			out := fmt.Sprintf(verb, v)
			if shows(out, private.Bytes()) || shows(out, preshared.Bytes()) {
				t.Errorf("%s of %s shows the key: %s", verb, name, out)
			}
		}
	}
	if out := fmt.Sprintf("%v %+v", held, held); shows(out, private.Bytes()) || shows(out, preshared.Bytes()) {
		t.Errorf("a struct shows its key: %s", out)
	}

	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("test", "private", private, "pointer", &private, "preshared", preshared, "held", held)
	}
	if shows(log.String(), private.Bytes()) || shows(log.String(), preshared.Bytes()) || strings.Contains(log.String(), alicePrivate) {
		t.Errorf("a log shows the key:\n%s", log.String())
	}
}

func TestSecretsAreNotMarshalled(t *testing.T) {
	for name, v := range map[string]any{
		"private":   mustPrivate(t, alicePrivate),
		"preshared": PresharedFromSecret([]byte("hush")),
		"inside":    struct{ K Private }{mustPrivate(t, alicePrivate)},
	} {
		if out, err := json.Marshal(v); err == nil {
			t.Errorf("%s: marshalled as %s", name, out)
		}
	}
}

func TestPublicText(t *testing.T) {
	var got struct{ K, None Public }
	doc := `{"K":"` + alicePublic + `","None":""}`
	if err := json.Unmarshal([]byte(doc), &got); err != nil {
		t.Fatal(err)
	}
	if out, err := json.Marshal(got); err != nil || string(out) != doc {
		t.Errorf("round trip gives %s (%v), want %s", out, err, doc)
	}
	if err := json.Unmarshal([]byte(`{"K":"AAAA"}`), &got); err == nil {
		t.Error("a short key was accepted")
	}
}

func TestLess(t *testing.T) {
	low, high := Public{0: 1}, Public{0: 2}
	if !low.Less(high) || high.Less(low) || low.Less(low) {
		t.Error("keys are not ordered by their bytes")
	}
	if last := (Public{0: 1, 31: 1}); !low.Less(last) {
		t.Error("the last byte does not count")
	}
}

func FuzzParsePublic(f *testing.F) {
	f.Add(alicePublic)
	f.Add("AAAA")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParsePublic(s)
		if err != nil {
			if !k.IsZero() {
				t.Errorf("a key beside the error %v", err)
			}
			return
		}
		back, err := ParsePublic(k.String())
		if err != nil || back != k {
			t.Errorf("%q reads back as %v, %v", k.String(), back, err)
		}
	})
}
