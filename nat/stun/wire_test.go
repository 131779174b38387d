package stun

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	pion "github.com/pion/stun/v3"
)

var (
	testTx   = TxID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	testTo   = ProbeID{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7}
	testFrom = ProbeID{0xb0, 0xb1, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7}
	addr4    = netip.MustParseAddrPort("203.0.113.10:4500")
	addr6    = netip.MustParseAddrPort("[2001:db8::1]:4500")
)

func testKey() (k ProbeKey) {
	for i := range k {
		k[i] = byte(i)
	}
	return k
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func probe(t testing.TB, size int) []byte {
	t.Helper()
	b, err := AppendProbe(nil, Probe{Tx: testTx, To: testTo, From: testFrom, Size: size}, testKey())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The bytes were made by a few lines of Python with its own HMAC and CRC.
func TestGolden(t *testing.T) {
	for _, tt := range []struct {
		name string
		got  []byte
		want string
	}{
		{"probe", probe(t, 0), `000100542112a4420102030405060708090a0b0c
			0006002161306131613261336134613561366137 3a 62306231623262336234623562366237 000000
			001c00208dabbb89c30b1aa98214c4dbfdaa6daab86e6fe02f91ef1750b1e58132defbc4 8028000456051a46`},
		{"padded probe", probe(t, 121), `000100682112a4420102030405060708090a0b0c
			0006002161306131613261336134613561366137 3a 62306231623262336234623562366237 000000
			0026001000000000000000000000000000000000
			001c0020d7a3fc3976d082366aac803888921ab3c1e964d2959950f461b059f4e015e45f 802800043945e2ad`},
		{"answer v4", AppendAnswer(nil, testTx, addr4, testKey()), `010100382112a4420102030405060708090a0b0c
			0020000800013086ea12d548
			001c0020c57b33efc1f453094d2956c625c57721e2d2d07b278f44fe15c5635dd6c8b0ad 80280004cf740fea`},
		{"answer v6", AppendAnswer(nil, testTx, addr6, testKey()), `010100442112a4420102030405060708090a0b0c
			00200014000230860113a9fa0102030405060708090a0b0d
			001c00204bc2cac2c0879e86d39878c9348b0ffd032dc64b317d1c392f788031bdf0eb7d 8028000404c2074d`},
		{"request", AppendRequest(nil, testTx, RequestOptions{}), `000100002112a4420102030405060708090a0b0c`},
		{
			"change both", AppendRequest(nil, testTx, RequestOptions{ChangeIP: true, ChangePort: true}),
			`000100082112a4420102030405060708090a0b0c 0003000400000006`,
		},
		{
			"change port", AppendRequest(nil, testTx, RequestOptions{ChangePort: true}),
			`000100082112a4420102030405060708090a0b0c 0003000400000002`,
		},
		{
			"response port", AppendRequest(nil, testTx, RequestOptions{ResponsePort: 0x1234}),
			`000100082112a4420102030405060708090a0b0c 0027000212340000`,
		},
		{
			"padding", AppendRequest(nil, testTx, RequestOptions{Padding: 7}),
			`0001000c2112a4420102030405060708090a0b0c 002600080000000000000000`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(unhex(t, tt.want), tt.got); diff != "" {
				t.Errorf("bytes differ (-want +got):\n%s", diff)
			}
			m, err := Parse(tt.got)
			if err != nil {
				t.Fatal(err)
			}
			if m.Size != len(tt.got) || m.Tx != testTx {
				t.Errorf("size %d, tx %x", m.Size, m.Tx)
			}
		})
	}
}

func TestProbeRoundTrip(t *testing.T) {
	for size, want := range map[int]int{0: 104, 104: 104, 105: 108, 108: 108, 1200: 1200, 1201: 1204, MaxProbe: MaxProbe} {
		b := probe(t, size)
		m, err := Parse(b)
		if err != nil || m.Kind != KindProbe || m.To != testTo || m.From != testFrom || len(b) != want || m.Size != want {
			t.Errorf("size %d: %d bytes, %+v, %v", size, len(b), m, err)
		}
		if !m.Verify(testKey()) {
			t.Errorf("size %d: not authentic", size)
		}
		if again := probe(t, m.Size); !cmp.Equal(again, b) {
			t.Errorf("size %d: made again it differs", size)
		}
	}
	for _, size := range []int{-1, 1, 100, MaxProbe + 1, 1 << 30} {
		keep := []byte{1}
		b, err := AppendProbe(keep, Probe{Size: size}, testKey())
		if !errors.Is(err, ErrSize) || len(b) != 1 {
			t.Errorf("size %d: %d bytes, %v", size, len(b), err)
		}
	}
}

func TestAnswerRoundTrip(t *testing.T) {
	for in, want := range map[string]string{
		"203.0.113.10:4500": "203.0.113.10:4500", "[2001:db8::1]:1": "[2001:db8::1]:1",
		"[::ffff:203.0.113.10]:65535": "203.0.113.10:65535", "[fe80::1%eth0]:9": "[fe80::1]:9",
	} {
		b := AppendAnswer([]byte{0xff}, testTx, netip.MustParseAddrPort(in), testKey())[1:]
		m, err := Parse(b)
		if err != nil || m.Kind != KindAnswer || m.Mapped.String() != want || !m.Verify(testKey()) {
			t.Errorf("%s: %+v, %v", in, m, err)
		}
		if len(b) > MinProbe {
			t.Errorf("%s: an answer of %d bytes is longer than its probe", in, len(b))
		}
	}
}

// Whatever one bit is changed, the message does not parse, is no probe, or is not
// authentic; but for FINGERPRINT, whose check needs to be mended for the rest.
func TestVerifyEveryBit(t *testing.T) {
	for name, good := range map[string][]byte{
		"probe": probe(t, 120), "answer": AppendAnswer(nil, testTx, addr4, testKey()),
	} {
		for bit := range (len(good) - 8) * 8 {
			b := append([]byte(nil), good...)
			b[bit/8] ^= 1 << (bit % 8)
			mendFingerprint(b)
			m, err := Parse(b)
			if err == nil && (m.Kind == KindProbe || m.Kind == KindAnswer) && m.Verify(testKey()) {
				t.Errorf("%s: bit %d of byte %d changed, and still authentic", name, bit%8, bit/8)
			}
		}
		m, _ := Parse(good)
		if k := testKey(); m.Verify(ProbeKey{}) || !m.Verify(k) {
			t.Errorf("%s: wrong key accepted or right one refused", name)
		}
	}
}

func mendFingerprint(b []byte) {
	copy(b[len(b)-8:], appendFingerprint(append([]byte(nil), b[:len(b)-8]...), 0)[len(b)-8:])
}

func TestParseRefuses(t *testing.T) {
	attr := func(b []byte, t pion.AttrType, v ...byte) []byte {
		b = append(appendAttr(b, t, len(v)), v...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
		setLength(b, len(b))
		return b
	}
	req := func() []byte { return AppendRequest(nil, testTx, RequestOptions{}) }
	ok := func() []byte { return appendHeader(nil, bindingSuccess, testTx) }
	for _, tt := range []struct {
		name string
		b    []byte
		want Kind
		bad  bool
	}{
		{name: "empty", bad: true},
		{name: "short", b: req()[:19], bad: true},
		{name: "trailing byte", b: append(req(), 0), bad: true},
		{name: "trailing word", b: append(req(), 0, 0, 0, 0), bad: true},
		{name: "no cookie", b: append([]byte{0, 1, 0, 0, 1}, req()[5:]...), bad: true},
		{name: "top bits", b: append([]byte{0x80}, req()[1:]...), bad: true},
		{name: "attribute past the end", b: attr(appendAttr(req(), pion.AttrSoftware, 9), pion.AttrSoftware), bad: true},
		{name: "bad family", b: attr(ok(), pion.AttrXORMappedAddress, 0, 3, 0, 0, 0, 0, 0, 0), bad: true},
		{name: "v6 in 8 bytes", b: attr(ok(), pion.AttrXORMappedAddress, 0, 2, 0, 0, 0, 0, 0, 0), bad: true},
		{name: "short MAC", b: attr(req(), pion.AttrMessageIntegritySHA256, make([]byte, 16)...), bad: true},
		{name: "wrong fingerprint", b: attr(req(), pion.AttrFingerprint, 1, 2, 3, 4), bad: true},
		{name: "after fingerprint", b: attr(appendFingerprint(req(), 0), pion.AttrSoftware), bad: true},
		{name: "success without address", b: ok(), want: KindOther},
		{name: "indication", b: append([]byte{0, 0x11}, req()[2:]...), want: KindOther},
		{name: "allocate", b: append([]byte{0, 0x03}, req()[2:]...), want: KindOther},
		{name: "ICE", b: attr(req(), pion.AttrUsername, []byte("evtj:h6vY")...), want: KindOther},
		{name: "name without MAC", b: attr(req(), pion.AttrUsername, probe(t, 0)[24:57]...), want: KindOther},
		{name: "unknown required in response", b: attr(attr(ok(), pion.AttrXORMappedAddress, 0, 1, 0, 0, 0, 0, 0, 0), 0x7ff0), want: KindOther},
		{name: "unknown required in request", b: attr(req(), 0x7ff0), want: KindRequest},
		{name: "unknown optional in response", b: attr(attr(ok(), pion.AttrXORMappedAddress, 0, 1, 0, 0, 0, 0, 0, 0), 0xfff0), want: KindResponse},
		{name: "MAPPED-ADDRESS only", b: attr(ok(), pion.AttrMappedAddress, 0, 1, 0, 9, 1, 2, 3, 4), want: KindResponse},
		{name: "error code 200", b: attr(appendHeader(nil, bindingError, testTx), pion.AttrErrorCode, 0, 0, 2, 0), bad: true},
		{name: "error code 420", b: attr(appendHeader(nil, bindingError, testTx), pion.AttrErrorCode, 0, 0, 4, 20), want: KindRefusal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := Parse(tt.b)
			if (err != nil) != tt.bad || m.Kind != tt.want {
				t.Errorf("got %v %v, want %v, bad %v", m.Kind, err, tt.want, tt.bad)
			}
			if err != nil && !errors.Is(err, ErrMalformed) {
				t.Errorf("error %v is not ErrMalformed", err)
			}
		})
	}
}

// A probe whose name is spelled in capitals, that lacks FINGERPRINT, or has
// something after its MAC, is none.
func TestProbeIsStrict(t *testing.T) {
	reseal := func(b []byte) []byte { return seal(b[:60:60], 0, make([]byte, 32)) }
	upper := reseal(append(append(append([]byte(nil), probe(t, 0)[:24]...), strings.ToUpper(string(probe(t, 0)[24:57]))...), 0, 0, 0))
	noFP := probe(t, 0)[:96]
	setLength(noFP, 96)
	late := append(appendAttr(append([]byte(nil), noFP...), pion.AttrSoftware, 0)[:100], 0, 0, 0, 0)[:100]
	late = appendFingerprint(late, 0)
	for name, b := range map[string][]byte{"capitals": upper, "no fingerprint": noFP, "after the MAC": late} {
		if m, err := Parse(b); err != nil || m.Kind != KindOther {
			t.Errorf("%s: %v %v, want other", name, m.Kind, err)
		}
	}
}

// Test vectors of RFC 5769 sections 2.1 to 2.3.
func TestRFC5769(t *testing.T) {
	const (
		request = `000100582112a442b7e7a701bc34d686fa87dfae 802200105354554e207465737420636c69656e74
			002400046e0001ff 80290008932ff9b151263b36 000600096576746a3a68367659202020
			000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2 80280004e57a3bcf`
		response4 = `0101003c2112a442b7e7a701bc34d686fa87dfae 8022000b7465737420766563746f7220
			002000080001a147e112a643 000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7 80280004c07d4c96`
		response6 = `010100482112a442b7e7a701bc34d686fa87dfae 8022000b7465737420766563746f7220
			002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9
			00080014a382954e4be67bf11784c97c8292c275bfe3ed41 80280004c8fb0b4c`
	)
	tx := TxID(unhex(t, "b7e7a701bc34d686fa87dfae"))
	for _, tt := range []struct {
		in     string
		kind   Kind
		mapped string
	}{
		{in: request, kind: KindOther}, // of ICE
		{response4, KindResponse, "192.0.2.1:32853"},
		{response6, KindResponse, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"},
	} {
		b := unhex(t, tt.in)
		m, err := Parse(b)
		if err != nil || m.Kind != tt.kind || m.Tx != tx || !m.fingerprint {
			t.Errorf("%+v, %v", m, err)
		}
		if tt.mapped != "" && m.Mapped.String() != tt.mapped {
			t.Errorf("mapped %v, want %s", m.Mapped, tt.mapped)
		}
		b[30] ^= 1
		if _, err := Parse(b); err == nil {
			t.Error("wrong FINGERPRINT accepted")
		}
	}
}

// Test vector of RFC 8489 appendix B.1 with erratum 6268: the only one for
// MESSAGE-INTEGRITY-SHA256.
func TestRFC8489(t *testing.T) {
	b := unhex(t, `000100902112a44278ad3433c6ad72c029da412e
		001e00204a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704
		001500296f624d61744a6f733241414143662f2f3439396b393534643 64f4c33346f4c39465354767936347341000000
		0014000b6578616d706c652e6f726700 001d000400020000
		001c0020b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6518e65`)
	m, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	key := sha256.Sum256([]byte("マトリックス:example.org:TheMatrIX"))
	if !m.verify(key[:]) {
		t.Error("MESSAGE-INTEGRITY-SHA256 does not verify")
	}
}

// pion reads what we write: header, addresses, fingerprint.
func TestPionReads(t *testing.T) {
	for _, b := range [][]byte{probe(t, 1000), AppendAnswer(nil, testTx, addr6, testKey())} {
		var m pion.Message
		if err := pion.Decode(b, &m); err != nil {
			t.Fatal(err)
		}
		if err := pion.Fingerprint.Check(&m); err != nil {
			t.Error(err)
		}
	}
	var m pion.Message
	if err := pion.Decode(AppendAnswer(nil, testTx, addr6, testKey()), &m); err != nil {
		t.Fatal(err)
	}
	var x pion.XORMappedAddress
	if err := x.GetFrom(&m); err != nil || x.String() != addr6.String() {
		t.Errorf("%v, %v", x, err)
	}
}

func TestKeyIsRedacted(t *testing.T) {
	k := testKey()
	for _, s := range []string{fmt.Sprint(k), fmt.Sprintf("%v %+v %#v %s", k, k, k, k), fmt.Sprintf("%+v", struct{ K ProbeKey }{k})} {
		if strings.Contains(s, "1") {
			t.Errorf("printed as %s", s)
		}
	}
}

func TestAllocs(t *testing.T) {
	b, buf, p := probe(t, 1200), make([]byte, 0, 2048), Probe{Tx: testTx, Size: 1200}
	answer := AppendAnswer(nil, testTx, addr4, testKey())
	check := func(name string, most float64, f func()) {
		if n := testing.AllocsPerRun(100, f); n > most {
			t.Errorf("%s: %v allocations, want at most %v", name, n, most)
		}
	}
	check("Parse", 0, func() { _, _ = Parse(b); _, _ = Parse(answer) })
	check("AppendRequest", 0, func() { _ = AppendRequest(buf, testTx, RequestOptions{ChangePort: true}) })
	// HMAC takes some; an unauthenticated sender cannot cause it without a probe ID.
	check("AppendProbe", 10, func() { _, _ = AppendProbe(buf, p, testKey()) })
}

func BenchmarkParse(b *testing.B) {
	p := probe(b, 1200)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if _, err := Parse(p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	m, _ := Parse(probe(b, 0))
	for b.Loop() {
		if !m.Verify(testKey()) {
			b.Fatal("not authentic")
		}
	}
}
