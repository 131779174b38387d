package hello

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"corax/dataplane/key"
)

func testCodec(t testing.TB) *codec {
	t.Helper()
	c, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// few resolves the keys 1 to 9.
func few(o netip.Addr) (key.Public, bool) {
	for i := byte(1); i < 10; i++ {
		if peerKey(i).Overlay() == o {
			return peerKey(i), true
		}
	}
	return key.Public{}, false
}

// encode encodes a value as decode returns it.
func (c *codec) encode(v any) ([]byte, error) {
	switch v := v.(type) {
	case *Self:
		return c.self(*v)
	case *Candidates:
		return c.candidates(*v)
	case *Relay:
		return c.relay(*v)
	case *Costs:
		return c.costs(*v)
	case *Claims:
		return c.claims(*v)
	}
	return nil, fmt.Errorf("%T", v)
}

// TestWireFormat fixes the bytes: peers of other versions depend on them.
func TestWireFormat(t *testing.T) {
	c := testCodec(t)
	b, err := c.self(Self{Version: "v1", Hub: true})
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.split(0x0102, TopicSelf, 3, b)
	if err != nil {
		t.Fatal(err)
	}
	want := []byte{
		0xa4,          // map of 4
		1, 0x19, 1, 2, // instance
		2, 1, // topic
		3, 3, // sequence
		6, 0x47, // 7 bytes:
		0xa2, 1, 0x62, 'v', '1', 4, 0xf5, // {1: "v1", 4: true}
	}
	if len(m) != 1 || !bytes.Equal(m[0], want) {
		t.Errorf("% x\nwant % x", m, want)
	}
	name := appendName(peerKey(1))
	full := peerKey(1).Overlay().As16()
	if len(name) != 10 || !bytes.Equal(name, full[6:]) {
		t.Errorf("name % x", name)
	}
}

func TestSizes(t *testing.T) {
	c := testCodec(t)
	for _, n := range []int{1, maxPiece - 1, maxPiece, maxPiece + 1, 128 * maxPiece} {
		value := bytes.Repeat([]byte{0xab}, n)
		ms, err := c.split(1<<64-1, TopicRelay, 1<<64-1, value)
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		for i, b := range ms {
			m, _, err := c.parse(b)
			if err != nil {
				t.Fatalf("%d bytes, part %d of %d bytes: %v", n, i, len(b), err)
			}
			got = append(got, m.Piece...)
		}
		if !bytes.Equal(got, value) {
			t.Errorf("%d bytes came back as %d", n, len(got))
		}
	}
	if _, err := c.split(1, TopicRelay, 1, make([]byte, 128*maxPiece+1)); err == nil {
		t.Error("129 parts are accepted")
	}
	// The biggest value of each topic fits its parts.
	longest := strings.Repeat("v", MaxText)
	biggest := Claims{Gateway: longest, Epoch: 1<<64 - 1, Active: slices.Repeat([]string{longest}, MaxActive)}
	links := Costs{Links: slices.Repeat([]Link{{peerKey(1), 1<<32 - 1, true}}, MaxLinks)}
	addrs := someCandidates(1)
	addrs.Addrs = slices.Repeat(addrs.Addrs[1:], MaxAddrs)
	self := Self{strings.Repeat("v", MaxText), strings.Repeat("v", MaxText), strings.Repeat("v", MaxText), true, true}
	for topic, v := range map[Topic]any{TopicSelf: &self, TopicCandidates: &addrs, TopicCosts: &links, TopicClaims: &biggest} {
		b, err := c.encode(v)
		if err == nil {
			_, err = c.split(1, topic, 1, b)
		}
		if err != nil {
			t.Errorf("%s: %v", topic, err)
		}
	}
}

// What we would refuse we do not say.
func TestSettersRefuse(t *testing.T) {
	c := testCodec(t)
	one := func(a string) *Candidates {
		v := someCandidates(1)
		v.Addrs = []Candidate{{0, netip.MustParseAddrPort(a)}}
		return &v
	}
	for _, v := range []any{
		&Self{Node: "a\nb"}, &Self{Node: "\xff"}, &Self{Version: strings.Repeat("x", MaxText+1)},
		&Candidates{}, one("127.0.0.1:1"), one("[::1]:1"), one("0.0.0.0:1"), one("224.0.0.1:1"),
		one("192.0.2.1:0"), one("[fe80::1%eth0]:1"), one("[::ffff:192.0.2.1]:1"), one("255.255.255.255:1"),
		&Relay{Wanted: []Want{{}}}, &Relay{Labels: []Label{{Peer: peerKey(1)}}},
		&Relay{Labels: []Label{{Peer: peerKey(1), Label: 1 << 56}}},
		&Relay{Labels: []Label{{Peer: peerKey(1), Label: 1, Via: make([]key.Public, MaxVia+1)}}},
		&Relay{Labels: []Label{{Peer: peerKey(1), Label: 1, Via: make([]key.Public, 1)}}},
		&Relay{Wanted: make([]Want, MaxWanted+1)}, &Costs{Links: make([]Link, 1)},
		&Claims{Gateway: "a\nb"}, &Claims{Active: []string{"\xff"}}, &Claims{Active: make([]string, MaxActive+1)},
	} {
		if b, err := c.encode(v); err == nil {
			t.Errorf("%+v is said as % x", v, b)
		}
	}
}

// A bad entry costs only itself.
func TestBadEntries(t *testing.T) {
	c := testCodec(t)
	marshal := func(v any) []byte {
		b, err := c.enc.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := []byte{192, 0, 2, 1, 0, 1}
	w := wireCandidates{ProbeID: make([]byte, 8), ProbeKey: bytes.Repeat([]byte{1}, 32)}
	for _, a := range [][]byte{good, nil, {1}, {127, 0, 0, 1, 0, 1}, {192, 0, 2, 1, 0, 0}, make([]byte, 18), make([]byte, 7)} {
		w.Addrs = append(w.Addrs, wireCandidate{Addr: a})
	}
	n := &names{resolve: few}
	v, err := c.decode(TopicCandidates, marshal(w), n)
	if err != nil || n.refused != 6 || len(v.v.(*Candidates).Addrs) != 1 {
		t.Errorf("%v, %d refused, %v", v.v, n.refused, err)
	}
	// What nobody could have meant is refused whole.
	for name, b := range map[string][]byte{
		"short probe key": marshal(wireCandidates{ProbeID: make([]byte, 8), ProbeKey: make([]byte, 31)}),
		"zero probe key":  marshal(wireCandidates{ProbeID: make([]byte, 8), ProbeKey: make([]byte, 32)}),
		"short name":      marshal(wireRelay{Wanted: []wireWant{{Peer: []byte{1}}}}),
		"long label":      marshal(wireRelay{Labels: []wireLabel{{Peer: appendName(peerKey(1)), Label: 1 << 56}}}),
		"many candidates": marshal(wireCandidates{ProbeID: make([]byte, 8), ProbeKey: w.ProbeKey, Addrs: make([]wireCandidate, MaxAddrs+1)}),
	} {
		for _, topic := range []Topic{TopicCandidates, TopicRelay} {
			if v, err := c.decode(topic, b, &names{resolve: few}); err == nil {
				if !strings.HasPrefix(name, "short name") && !strings.HasPrefix(name, "long") || topic == TopicRelay {
					t.Errorf("%s as %s: %+v", name, topic, v.v)
				}
			}
		}
	}
}

func TestProbeKeyIsNotPrinted(t *testing.T) {
	v := someCandidates(1)
	v.ProbeKey = [32]byte(bytes.Repeat([]byte{0xee}, 32))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		for _, x := range []any{v, &v, []Candidates{v}} {
			s := strings.ToLower(fmt.Sprintf(verb, x))
			if strings.Contains(s, "eeee") || strings.Contains(s, "238") || strings.Contains(s, "ee, 0xee") {
				t.Errorf("%s: %s", verb, s)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	c := testCodec(f)
	for topic := TopicSelf; topic < topicEnd; topic++ {
		ms, err := c.split(7, topic, 9, make([]byte, (maxParts(topic)-1)*maxPiece+1))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(ms[0])
		f.Add(ms[len(ms)-1])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, _, err := c.parse(b)
		if err != nil {
			return
		}
		if m.Topic == 0 || m.Topic >= uint64(topicEnd) || m.Part >= m.Parts || len(m.Piece) > len(b) {
			t.Fatalf("%+v", m)
		}
		again, err := c.enc.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if len(again) > MaxMessage { // the input was shorter than it may be
			return
		}
		m2, _, err := c.parse(again)
		if d := cmp.Diff(m, m2); err != nil || d != "" {
			t.Fatal(err, d)
		}
	})
}

func FuzzDecode(f *testing.F) {
	c := testCodec(f)
	addrs, relay := someCandidates(3), bigRelay(1, 2)
	for topic, v := range map[Topic]any{
		TopicSelf: &Self{"v", "g", "n", true, true}, TopicCandidates: &addrs, TopicRelay: &relay,
		TopicCosts:  &Costs{[]Link{{peerKey(1), 5, true}}},
		TopicClaims: &Claims{"edge-a", 4, []string{"n1", "n2"}},
	} {
		b, err := c.encode(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(topic), b)
	}
	f.Fuzz(func(t *testing.T, topic uint8, b []byte) {
		v, err := c.decode(Topic(topic), b, &names{resolve: few})
		if err != nil {
			return
		}
		again, err := c.encode(v.v)
		if err != nil {
			t.Fatalf("what was heard cannot be said: %v", err)
		}
		v2, err := c.decode(Topic(topic), again, &names{resolve: few})
		if d := cmp.Diff(v.v, v2.v, compareAddr()); err != nil || d != "" {
			t.Fatal(err, d)
		}
	})
}
