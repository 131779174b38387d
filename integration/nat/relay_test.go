//go:build linux

package nat_test

import (
	"bytes"
	"context"
	"net/netip"
	"testing"
	"time"

	"corax/integration/lab"
)

// say sends a datagram with the marker, several times over, from one pod to
// another, and waits for it to come back.
func (n *network) say(t *testing.T, from, to string, mark []byte) {
	t.Helper()
	c, err := n.pod(from).DialUDP(n.at(to))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	msg, answer := bytes.Repeat(mark, 20), make([]byte, 1500)
	for range 10 {
		if _, err := c.Write(msg); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if k, err := c.Read(answer); err == nil && bytes.Equal(answer[:k], msg) {
			return
		}
	}
	t.Fatalf("nothing came back from %s to %s", to, from)
}

// TestRelaySeesCiphertext looks for what pods say on all that the relay sees.
func TestRelaySeesCiphertext(t *testing.T) {
	blocked := random
	blocked.BlockUDP = true
	for _, tt := range []struct {
		name string
		a    lab.NAT
		kind string
	}{{"UDP", random, "relay"}, {"TLS", blocked, "relay-tls"}} {
		t.Run(tt.name, func(t *testing.T) {
			n := start(t, lab.InternetOptions{Sites: pairOfSites(tt.a, random)()})
			hub := n.domain("hub").Gateway()
			mark := marker()
			n.flow("a", "b")
			if err := n.awaitPath(20*time.Second, "a", "b", "relay", tt.kind); err != nil {
				t.Fatal(err)
			}
			if k := n.peer("a", "b").Path.Kind; k != tt.kind {
				t.Errorf("the path is %s", k)
			}
			atHub, atPod := capture(t, hub.Host, "eth0", carries(mark)), capture(t, n.pod("b").Host, "eth0", carries(mark))
			all := capture(t, hub.Host, "eth0", func(f lab.Frame) bool { return f.Len > 480 })
			local := capture(t, hub.Host, lab.CNIBridge, carries(mark))
			n.say(t, "a", "b", mark)
			if atPod.Count() == 0 || all.Count() == 0 {
				t.Errorf("%d packets at the pod and %d at the hub: nothing was seen", atPod.Count(), all.Count())
			}
			if k := atHub.Count() + local.Count(); k > 0 {
				t.Errorf("the hub saw the plaintext %d times", k)
			}
		})
	}
}

// TestRelayStrangers has somebody who is nobody's peer send relay frames: with
// labels that he made up, and with those of others.
func TestRelayStrangers(t *testing.T) {
	n := start(t, lab.InternetOptions{Sites: pairOfSites(random, random)()})
	hub := n.domain("hub").Gateway()
	hubAt := netip.AddrPortFrom(hub.IP, tunnel)
	frames := capture(t, hub.Host, "eth0", func(f lab.Frame) bool {
		return !f.Outgoing && f.Src == n.domain("a").WANAddr() && isRelayFrame(f)
	})
	f := n.flow("a", "b")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := n.awaitPath(20*time.Second, "a", "b", "relay"); err != nil {
		t.Fatal(err)
	}
	if err := moves(ctx, f, 10); err != nil {
		t.Fatal(err)
	}
	if frames.Count() == 0 {
		t.Fatal("no relay frame of a was seen at the hub")
	}
	m := newMallory(t, n)
	mark := marker()
	forwarded := capture(t, hub.Host, "eth0", func(f lab.Frame) bool { return f.Outgoing && bytes.Contains(f.Data, mark) })
	answers := capture(t, m.Host, "eth0", func(f lab.Frame) bool { return !f.Outgoing && f.SrcPort == tunnel })

	// Looks like WireGuard data.
	content := append([]byte{4, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0}, bytes.Repeat(mark, 4)...)
	labelled := func(label []byte) []byte { return append(append([]byte{0xc5}, label...), content...) }
	const times = 20
	for _, tt := range []struct {
		name, counter string
		datagram      func() []byte
	}{
		{"a label that nobody gave", "wg_drop_total{unknown_label}", func() []byte { return labelled(marker()[:7]) }},
		{"a label of a peer", "wg_drop_total{wrong_hop}", func() []byte { return labelled(payload(frames.Frames()[0])[1:8]) }},
		{"a frame of a peer again", "wg_drop_total{wrong_hop}", func() []byte { return payload(frames.Frames()[0]) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := n.status("hub").Counters[tt.counter]
			for range times {
				m.send(m.own, hubAt, tt.datagram())
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := n.agent("hub").WaitStatus(ctx, counted(tt.counter, before+times)); err != nil {
				t.Error(err)
			}
		})
	}
	if k := forwarded.Count(); k > 0 {
		t.Errorf("the hub forwarded %d frames of a stranger", k)
	}
	if k := answers.Count(); k > 0 {
		t.Errorf("the hub answered a stranger %d times", k)
	}
	if err := moves(ctx, f, 10); err != nil {
		t.Error(err)
	}
	if k := n.peer("b", "a").Path.Kind; k != "relay" {
		t.Errorf("b's path to a became %s", k)
	}
}

// TestSTUNServer asks a hub as a stranger may.
func TestSTUNServer(t *testing.T) {
	n := start(t, lab.InternetOptions{Sites: []lab.Site{{Name: "hub", Hub: true}}})
	m := newMallory(t, n)
	hubAt := netip.AddrPortFrom(n.domain("hub").Gateway().IP, tunnel)
	username := attribute{attrUsername, []byte("0123456789abcdef:fedcba9876543210")}
	integrity := attribute{attrIntegrity256, make([]byte, 32)}
	for _, tt := range []struct {
		name  string
		b     []byte
		limit int // of the answer, in bytes; 0: none
	}{
		{"plain", message(bindingRequest), 44},
		{"padded", message(bindingRequest, attribute{attrPadding, make([]byte, 1000)}), 1024},
		{"a probe of nobody", message(bindingRequest, username, integrity), 0},
		{"a probe without a MAC", message(bindingRequest, username), 0},
		{"to answer elsewhere", message(bindingRequest, attribute{attrChangeRequest, []byte{0, 0, 0, 6}}), 0},
		{"an indication", message(bindingNotice), 0},
		{"an answer", message(bindingSuccess, xorMapped(m.own)), 0},
		{"an attribute that nobody knows", message(bindingRequest, attribute{attrUnknown, make([]byte, 100)}), 124},
		{"cut off", message(bindingRequest, username)[:30], 0},
		{"only a header of a long one", message(bindingRequest, attribute{attrPadding, make([]byte, 100)})[:20], 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := m.DialUDP(hubAt)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			if _, err := c.Write(tt.b); err != nil {
				t.Fatal(err)
			}
			wait := 3 * time.Second
			if tt.limit == 0 {
				wait = 300 * time.Millisecond
			}
			if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, 2000)
			k, err := c.Read(answer)
			if (err == nil) != (tt.limit > 0) && tt.name != "an attribute that nobody knows" {
				t.Fatalf("an answer of %d bytes, %v", k, err)
			}
			if k > tt.limit || k > max(len(tt.b), 44) {
				t.Errorf("an answer of %d bytes to %d", k, len(tt.b))
			}
			if tt.name != "plain" && tt.name != "padded" {
				return
			}
			want := netip.MustParseAddrPort(c.LocalAddr().String())
			if got, ok := mappedIn(answer[:k]); !ok || got != want {
				t.Errorf("the answer says %v, want %v", got, want)
			}
		})
	}
	t.Run("too many", func(t *testing.T) {
		answers := capture(t, m.Host, "eth0", func(f lab.Frame) bool { return !f.Outgoing && f.SrcPort == tunnel })
		const times = 3000
		for range times {
			m.send(m.own, hubAt, message(bindingRequest))
		}
		// Somebody else is answered all the same.
		c, err := n.Internet.DialUDP(hubAt)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if _, err := c.Write(message(bindingRequest)); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(3 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 100)); err != nil {
			t.Errorf("somebody else got no answer: %v", err)
		}
		if k := answers.Count(); k == 0 || k > times/3 {
			t.Errorf("%d of %d requests in a row were answered", k, times)
		}
	})
}
