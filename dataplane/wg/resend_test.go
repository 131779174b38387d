package wg

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"corax/dataplane"
	"corax/dataplane/key"
)

func TestPending(t *testing.T) {
	start := time.Unix(1000, 0)
	msg := make([]byte, sizeInitiation)
	msg[0], msg[offSender] = 1, 7
	var p peer
	for _, step := range []struct {
		name   string
		at     time.Duration
		do     func()
		resent bool
	}{
		{"nothing was sent", 0, nil, false},
		{"just sent", 0, func() { p.await(msg, start) }, false},
		{"soon", 900 * time.Millisecond, nil, false},
		{"first copy", 1000 * time.Millisecond, nil, true},
		{"not twice", 1500 * time.Millisecond, nil, false},
		{"second copy", 2000 * time.Millisecond, nil, true},
		{"third copy", 3000 * time.Millisecond, nil, true},
		{"given up", 4000 * time.Millisecond, nil, false},
		{"for good", 9000 * time.Millisecond, nil, false},
		{"a new one", 9000 * time.Millisecond, func() { p.await(msg, start.Add(9*time.Second)) }, false},
		{"an answer to another one", 10 * time.Second, func() { p.answered(8) }, true},
		{"its answer", 20 * time.Second, func() { p.answered(7) }, false},
	} {
		if step.do != nil {
			step.do()
		}
		got := p.overdue(start.Add(step.at))
		if (got != nil) != step.resent || got != nil && !bytes.Equal(got, msg) {
			t.Errorf("%s: resent %v, want %v", step.name, got != nil, step.resent)
		}
	}
}

// TestLatePeer loses the first initiations, as when an agent starts a moment
// before its hub: they are sent again, before WireGuard makes a new one.
func TestLatePeer(t *testing.T) {
	early, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	port := early.LocalAddr().(*net.UDPAddr).AddrPort()
	late, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	a := newNode(t, inner1.String())
	mustPeers(t, a, dataplane.Peer{
		PublicKey: late.Public(), Endpoint: port, AllowedIPs: []netip.Prefix{netip.PrefixFrom(inner2, inner2.BitLen())},
	})
	a.Handshake(late.Public())
	var seen [2][]byte
	for i := range seen {
		buf := make([]byte, 2048)
		n, err := early.Read(buf)
		if err != nil || Classify(buf[:n]) != KindInitiation {
			t.Fatalf("read %d bytes, %v; want an initiation", n, err)
		}
		seen[i] = buf[:n]
	}
	if !bytes.Equal(seen[0], seen[1]) {
		t.Error("the second initiation is not a copy of the first: it was WireGuard's own retry")
	}
	if err := early.Close(); err != nil {
		t.Fatal(err)
	}
	b := startNode(t, late, inner2.String(), func(c *Config) { c.Port = port.Port() })
	mustPeers(t, b, a.peer(netip.AddrPort{}))
	eventually(t, "no handshake", func() bool { return !a.status(late.Public()).LastHandshake.IsZero() })
}

// TestHandshakeBeforeRun asks for a handshake that Run then does.
func TestHandshakeBeforeRun(t *testing.T) {
	hub, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer hub.Close()
	own, _ := key.NewPrivate()
	other, _ := key.NewPrivate()
	d, err := New(Config{PrivateKey: own, MTU: dataplane.DefaultMTU, Receive: discard()})
	if err != nil {
		t.Fatal(err)
	}
	err = d.SetPeers([]dataplane.Peer{{PublicKey: other.Public(), Endpoint: hub.LocalAddr().(*net.UDPAddr).AddrPort()}})
	if err != nil {
		t.Fatal(err)
	}
	d.Handshake(other.Public())
	run(t, d)
	if err := hub.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	if n, err := hub.Read(buf); err != nil || Classify(buf[:n]) != KindInitiation {
		t.Errorf("read %d bytes, %v; want an initiation", n, err)
	}
}
