package wg

import (
	"bytes"
	"net"
	"net/netip"
	"sync"
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
	begin := func() {
		if !p.await(msg, start) {
			t.Error("held back for no reason")
		}
	}
	for _, step := range []struct {
		name   string
		at     time.Duration
		do     func()
		noPath bool
		resent bool
		waits  bool
	}{
		{"nothing was sent", 0, nil, false, false, false},
		{"just sent", 0, begin, false, false, true},
		{"soon", 299 * time.Millisecond, nil, false, false, true},
		{"no path", 300 * time.Millisecond, nil, true, false, true},
		{"first copy", 300 * time.Millisecond, nil, false, true, true},
		{"not twice", 350 * time.Millisecond, nil, false, false, true},
		{"second copy", 900 * time.Millisecond, nil, false, true, true},
		{"third copy", 2100 * time.Millisecond, nil, false, true, true},
		{"given up", 4500 * time.Millisecond, nil, false, false, false},
		{"for good", 9 * time.Second, nil, false, false, false},
		{"a new one", 0, begin, false, false, true},
		{"an answer to another one", time.Second, func() { p.answered(8) }, false, true, true},
		{"its answer", 3 * time.Second, func() { p.answered(7) }, false, false, false},
		{"one more", 0, begin, false, false, true},
		{"no path for long", 6 * time.Second, nil, true, false, false},
	} {
		if step.do != nil {
			step.do()
		}
		got, waits := p.overdue(start.Add(step.at), !step.noPath)
		if (got != nil) != step.resent || got != nil && !bytes.Equal(got, msg) || waits != step.waits {
			t.Errorf("%s: resent %v, want %v; waits %v", step.name, got != nil, step.resent, waits)
		}
	}
}

func TestAgain(t *testing.T) {
	start := time.Unix(1000, 0)
	initiation, other := make([]byte, sizeInitiation), make([]byte, sizeInitiation)
	initiation[offSender], other[offSender] = 7, 8
	msg := make([]byte, sizeResponse)
	msg[0], msg[offReceiverResponse] = 2, 7
	var p peer
	from, elsewhere := &way{to: netip.MustParseAddrPort("192.0.2.1:4500")}, &way{to: netip.MustParseAddrPort("192.0.2.2:4500")}
	if p.again(initiation, from, start) != nil {
		t.Error("a copy of nothing")
	}
	p.answers(msg, from, start)
	if p.again(other, from, start) != nil {
		t.Error("a copy for another initiation")
	}
	if p.again(initiation, from, start.Add(replyFor+1)) != nil {
		t.Error("a copy that comes too late")
	}
	if p.again(initiation, elsewhere, start) != nil {
		t.Error("a copy for somebody who replays the initiation from elsewhere")
	}
	n := 0
	for range 100 {
		if got := p.again(initiation, from, start); bytes.Equal(got, msg) {
			n++
		}
	}
	if n != maxResends+1 {
		t.Errorf("%d copies, want %d", n, maxResends+1)
	}
}

// TestLostResponse loses responses: each copy of the initiation has the response
// sent again, where WireGuard would begin anew after five seconds.
func TestLostResponse(t *testing.T) {
	a, b := newNode(t, inner1.String()), newNode(t, inner2.String())
	toA, toB := rawSocket(t), rawSocket(t)
	var done sync.WaitGroup
	t.Cleanup(func() {
		_, _ = toA.Close(), toB.Close()
		done.Wait()
	})
	var mu sync.Mutex
	var responses [][]byte
	carry := func(in, out *net.UDPConn, to netip.AddrPort) {
		buf := make([]byte, 2048)
		for {
			n, err := in.Read(buf)
			if err != nil {
				return
			}
			if Classify(buf[:n]) == KindResponse {
				mu.Lock()
				responses = append(responses, bytes.Clone(buf[:n]))
				lost := len(responses) < 3
				mu.Unlock()
				if lost {
					continue
				}
			}
			_, _ = out.WriteToUDPAddrPort(buf[:n], to)
		}
	}
	done.Go(func() { carry(toB, toA, b.at("127.0.0.1")) })
	done.Go(func() { carry(toA, toB, a.at("127.0.0.1")) })
	mustPeers(t, b, a.peer(localAddr(toA)))
	mustPeers(t, a, b.peer(localAddr(toB)))
	a.Handshake(b.key.Public())
	eventually(t, "no handshake", func() bool { return !a.status(b.key.Public()).LastHandshake.IsZero() })
	exchange(t, a, b, 1)
	mu.Lock()
	defer mu.Unlock()
	if len(responses) != 3 || !bytes.Equal(responses[0], responses[1]) || !bytes.Equal(responses[0], responses[2]) {
		t.Errorf("%d responses, want one and two copies of it", len(responses))
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
