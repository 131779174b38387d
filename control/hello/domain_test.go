package hello

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func domainCodec(t testing.TB) *DomainCodec {
	t.Helper()
	c, err := NewDomainCodec()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDomainRoundTrip(t *testing.T) {
	c := domainCodec(t)
	for _, d := range []Domain{
		{},
		{Gateway: "edge-a", Node: "n1", Ask: true},
		{Gateway: "edge-a", Node: "n1", Listed: true, Epoch: 1<<64 - 1, Active: slices.Repeat([]string{strings.Repeat("n", 60)}, MaxActive)},
	} {
		b, err := c.Encode(d)
		if err != nil {
			t.Fatal(err)
		}
		got, ok, err := c.Decode(b)
		if err != nil || !ok {
			t.Fatalf("%t, %v", ok, err)
		}
		if diff := cmp.Diff(d, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestDomainRefused(t *testing.T) {
	c := domainCodec(t)
	long := strings.Repeat("x", MaxText+1)
	for _, d := range []Domain{
		{Gateway: long},
		{Node: long},
		{Node: "a\nb"},
		{Active: []string{long}},
		{Active: make([]string, MaxActive+1)},
		{Active: slices.Repeat([]string{strings.Repeat("x", MaxText)}, MaxActive)}, // no datagram holds it
	} {
		if b, err := c.Encode(d); err == nil {
			t.Errorf("%+v is said as %x", d, b)
		}
	}
	inside := func(w wireDomain) []byte {
		v, err := c.codec.enc.Marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		b, err := c.codec.enc.Marshal(message{Instance: 1, Topic: uint64(topicDomain), Sequence: 1, Piece: v})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, w := range []wireDomain{{Gateway: long}, {Node: "\x00"}, {Active: make([]string, MaxActive+1)}} {
		if _, ok, err := c.Decode(inside(w)); !ok || err == nil {
			t.Errorf("%+v is heard", w)
		}
	}
}

// TestDomainApart: an Exchange and a DomainCodec leave each other's datagrams
// alone.
func TestDomainApart(t *testing.T) {
	c := domainCodec(t)
	b, err := c.Encode(Domain{Gateway: "edge-a"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.codec.parse(b); !errors.Is(err, errTopic) {
		t.Errorf("an Exchange takes it: %v", err)
	}
	value, err := c.codec.self(Self{Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	said, err := c.codec.split(7, TopicSelf, 1, value)
	if err != nil {
		t.Fatal(err)
	}
	if d, ok, err := c.Decode(said[0]); ok || err != nil {
		t.Errorf("%+v, %t, %v", d, ok, err)
	}
}

func FuzzDomain(f *testing.F) {
	c := domainCodec(f)
	b, err := c.Encode(Domain{Gateway: "edge-a", Node: "n1", Ask: true, Listed: true, Epoch: 3, Active: []string{"n1"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, ok, err := c.Decode(b)
		if !ok || err != nil {
			return
		}
		again, err := c.Encode(d)
		if err != nil {
			t.Fatalf("%+v cannot be said: %v", d, err)
		}
		if got, _, err := c.Decode(again); err != nil || cmp.Diff(d, got) != "" {
			t.Errorf("%+v became %+v, %v", d, got, err)
		}
	})
}
