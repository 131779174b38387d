package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"corax/control"
	"corax/control/hello"
	"corax/dataplane/key"
)

// talker is a domainTalk of node me in the domain of a and b, listed, and what it
// said.
type talker struct {
	*domainTalk
	at      time.Time
	urge    bool
	said    []string
	changes int
	heard   []key.Public
}

func newTalker(me string, claim *control.Claim) *talker {
	x := &talker{at: time.Unix(1000, 0)}
	x.domainTalk = &domainTalk{
		say: func(to netip.Addr, d hello.Domain) error {
			x.said = append(x.said, fmt.Sprintf("%s ask=%t listed=%t epoch=%d %v", nameOf(to), d.Ask, d.Listed, d.Epoch, d.Active))
			return nil
		},
		urgent:  func() bool { return x.urge },
		changed: func() { x.changes++ },
		heard:   func(k key.Public) { x.heard = append(x.heard, k) },
		now:     func() time.Time { return x.at },
		told:    map[key.Public]told{}, asking: map[netip.Addr]time.Time{},
	}
	x.look(talkView(me, claim))
	return x
}

func nodeKey(name string) key.Public { return key.Public{name[0], 1} }

func nameOf(a netip.Addr) string {
	for _, n := range []string{"a", "b", "n", "x"} {
		if nodeKey(n).Overlay() == a {
			return n
		}
	}
	return a.String()
}

func talkView(me string, claim *control.Claim) domainView {
	d := &control.Domain{Active: []string{"a"}, Carriers: []string{"a"}, Claim: claim}
	for _, n := range []string{"a", "b"} {
		d.Members = append(d.Members, control.Member{Node: n, Key: nodeKey(n), Overlay: nodeKey(n).Overlay()})
	}
	return domainView{gateway: "g", node: me, domain: d, claim: claim}
}

// lines returns what was said since the last call, sorted.
func (x *talker) lines() string {
	slices.Sort(x.said)
	out := strings.Join(x.said, "\n")
	x.said = nil
	return out
}

func (x *talker) want(t *testing.T, what string, lines ...string) {
	t.Helper()
	if diff := cmp.Diff(strings.Join(lines, "\n"), x.lines()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestDomainTalkPlainNode(t *testing.T) {
	x := newTalker("n", nil)
	ask := []string{"a ask=true listed=false epoch=0 []", "b ask=true listed=false epoch=0 []"}
	x.want(t, "at first")
	x.round()
	x.want(t, "the first round", ask...)
	for range 9 {
		x.at = x.at.Add(time.Second)
		x.round()
	}
	x.want(t, "nine more")
	x.at = x.at.Add(time.Second)
	x.round()
	x.want(t, "after ten seconds", ask...)
	x.urge = true
	x.at = x.at.Add(time.Second)
	x.round()
	x.want(t, "its home is silent", ask...)

	b := nodeKey("b").Overlay()
	say := hello.Domain{Gateway: "g", Node: "b", Listed: true, Epoch: 1, Active: []string{"b"}}
	x.take(b, say)
	x.take(b, say)
	want := []control.Claim{{Gateway: "g", Epoch: 1, Active: []string{"b"}, From: nodeKey("b")}}
	if diff := cmp.Diff(want, x.claims()); diff != "" || x.changes != 1 {
		t.Errorf("%d changes\n%s", x.changes, diff)
	}
	// Who is not listed says nothing, nor does another domain, nor an answer that
	// is none.
	for _, bad := range []struct {
		from netip.Addr
		d    hello.Domain
	}{
		{nodeKey("x").Overlay(), hello.Domain{Gateway: "g", Node: "a", Listed: true, Epoch: 9, Active: []string{"x"}}},
		{b, hello.Domain{Gateway: "other", Node: "b", Listed: true, Epoch: 9}},
		{b, hello.Domain{Gateway: "g", Node: "b", Epoch: 9}},
		{nodeKey("x").Overlay(), hello.Domain{Gateway: "g", Node: "x", Ask: true}},
	} {
		x.take(bad.from, bad.d)
	}
	if diff := cmp.Diff(want, x.claims()); diff != "" || x.changes != 1 || x.lines() != "" {
		t.Errorf("strangers are heard: %d changes\n%s", x.changes, diff)
	}
	x.urge = false
	x.at = x.at.Add(askedFor + time.Second)
	x.round()
	if len(x.claims()) != 0 || x.changes != 2 {
		t.Error("what was said long ago still counts")
	}
}

func TestDomainTalkListed(t *testing.T) {
	x := newTalker("b", nil)
	x.lines()
	node := nodeKey("n").Overlay()
	x.take(node, hello.Domain{Gateway: "g", Node: "n", Ask: true})
	x.want(t, "who asks", "n ask=false listed=true epoch=0 [a]")

	mine := &control.Claim{Gateway: "g", Epoch: 1, Active: []string{"b"}, From: nodeKey("b")}
	x.look(talkView("b", mine))
	x.want(t, "a claim", "a ask=false listed=true epoch=1 [b]", "n ask=false listed=true epoch=1 [b]")
	x.look(talkView("b", mine))
	x.want(t, "no news")
	for range tellTimes {
		x.at = x.at.Add(time.Second)
		x.round()
	}
	if got := x.lines(); strings.Count(got, "n ask=false") != tellTimes {
		t.Errorf("a change is said\n%s", got)
	}
	x.at = x.at.Add(time.Second)
	x.round()
	x.want(t, "while the claim is in force whoever comes back hears it", "a ask=false listed=true epoch=1 [b]")

	if nodes, heard := x.nodes(3, x.at.Add(-time.Second)); len(nodes) != 1 || nodes[0] != node || heard {
		t.Errorf("%v, %t", nodes, heard)
	}
	x.at = x.at.Add(askedFor)
	x.round()
	if nodes, _ := x.nodes(3, time.Time{}); len(nodes) != 0 {
		t.Errorf("%v still count", nodes)
	}
}

func TestDomainTalkTwoKeys(t *testing.T) {
	x := newTalker("n", nil)
	v := talkView("n", nil)
	v.domain.Members[0].Other = nodeKey("x")
	x.look(v)
	x.at = x.at.Add(askEvery)
	x.round()
	if got := x.lines(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "x ask=true") {
		t.Errorf("asked\n%s", got)
	}
	x.take(nodeKey("x").Overlay(), hello.Domain{Gateway: "g", Node: "a", Listed: true})
	x.take(nodeKey("b").Overlay(), hello.Domain{Gateway: "g", Node: "b", Listed: true})
	if diff := cmp.Diff([]key.Public{nodeKey("x")}, x.heard); diff != "" {
		t.Error(diff)
	}
}

func TestClaimBook(t *testing.T) {
	changes := 0
	b := claimBook{changed: func() { changes++ }}
	c := &hello.Claims{Gateway: "g", Epoch: 2, Active: []string{"n"}}
	b.heard(nodeKey("a"), c)
	b.heard(nodeKey("a"), &hello.Claims{Gateway: "g", Epoch: 2, Active: []string{"n"}})
	b.heard(nodeKey("b"), nil)
	if all := b.all(); changes != 1 || len(all) != 1 || all[0].From != nodeKey("a") || all[0].Epoch != 2 {
		t.Errorf("%d changes, %v", changes, all)
	}
	b.heard(nodeKey("a"), nil)
	if changes != 2 || len(b.all()) != 0 {
		t.Errorf("%d changes, %v", changes, b.all())
	}
	b.heard(nodeKey("a"), c)
	b.clear()
	b.clear()
	if changes != 4 || len(b.all()) != 0 {
		t.Errorf("cleared: %d changes, %v", changes, b.all())
	}
}

// TestHelloPort sorts what comes to the port: of this domain, of peers, noise.
func TestHelloPort(t *testing.T) {
	codec, err := hello.NewDomainCodec()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	p := &helloPort{codec: codec, take: func(from netip.Addr, d hello.Domain) { got = append(got, nameOf(from)+" "+d.Node) }}
	from := func(port int) net.Addr { return &net.UDPAddr{IP: nodeKey("a").Overlay().AsSlice(), Port: port} }
	b, err := codec.Encode(hello.Domain{Gateway: "g", Node: "a"})
	if err != nil {
		t.Fatal(err)
	}
	p.datagram(b, from(hello.Port))
	p.datagram(b, from(9)) // only an agent has the port
	p.datagram([]byte("a hello of a peer"), from(hello.Port))
	if diff := cmp.Diff([]string{"a a"}, got); diff != "" || p.malformed.Load() != 1 || p.dropped.Load() != 1 {
		t.Errorf("%d malformed, %d dropped\n%s", p.malformed.Load(), p.dropped.Load(), diff)
	}
	g := p.open()
	p.datagram([]byte("a hello of a peer"), from(hello.Port))
	buf := make([]byte, 100)
	n, a, err := g.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "a hello of a peer" || a.String() != from(hello.Port).String() {
		t.Errorf("%q from %v, %v", buf[:n], a, err)
	}
	for range helloWaiting + 3 {
		p.datagram([]byte("x"), from(hello.Port))
	}
	if n := p.dropped.Load(); n != 4 {
		t.Errorf("%d dropped", n)
	}
	second := p.open()
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	p.datagram([]byte("y"), from(hello.Port))
	if n, _, err := second.ReadFrom(buf); err != nil || string(buf[:n]) != "y" {
		t.Errorf("the end of an old tunnel closed the port: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := second.ReadFrom(buf); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
}
