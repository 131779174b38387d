package stun

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestAskServer(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(addr, func(t *testing.T) {
			if c, err := net.ListenPacket("udp", addr); err != nil {
				t.Skipf("no such loopback address: %v", err)
			} else if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			server, s := serve(t, addr)
			c := listen(t, addr)
			// What comes from elsewhere or is no STUN must not end it.
			noise := listen(t, addr)
			for _, b := range [][]byte{{1, 2, 3}, AppendAnswer(nil, testTx, addr4, testKey())} {
				if _, err := noise.WriteTo(b, c.LocalAddr()); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			mapped, rtt, err := Ask(ctx, c, server)
			if err != nil || mapped != local(c) || rtt <= 0 || s.reasons[answered].Load() == 0 {
				t.Errorf("%v, %v, %v, want %v", mapped, rtt, err, local(c))
			}
		})
	}
}

func TestAskCancelled(t *testing.T) {
	c, silent := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	ctx, cancel := context.WithCancel(t.Context())
	go func() { // ends it once it has asked
		buf := make([]byte, 100)
		_, _, _ = silent.ReadFrom(buf)
		cancel()
	}()
	if _, _, err := Ask(ctx, c, local(silent)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want canceled", err)
	}
	// The socket is as good as before.
	server, _ := serve(t, "127.0.0.1:0")
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, _, err := Ask(ctx, c, server); err != nil {
		t.Error(err)
	}
}

func TestDiscoverTwoHubs(t *testing.T) {
	a, _ := serve(t, "127.0.0.1:0")
	b, _ := serve(t, "127.0.0.2:0")
	c, other := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := Discover(ctx, Config{Servers: []netip.AddrPort{a, b}}, c, other)
	if err != nil || r.Mapping != MappingEndpointIndependent || r.Hairpin != Yes || r.Filtering != FilteringUnknown {
		t.Errorf("%v, %v", &r.Family, err)
	}
	r, err = Discover(ctx, Config{Servers: []netip.AddrPort{a, b}, Local: []netip.AddrPort{local(c)}}, c, nil)
	if err != nil || r.Mapping != MappingNone || !r.PortPreserved {
		t.Errorf("%v, %v", &r.Family, err)
	}
}

func TestDiscoverCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	silent := listen(t, "127.0.0.1:0")
	_, err := Discover(ctx, Config{Servers: []netip.AddrPort{local(silent)}}, listen(t, "127.0.0.1:0"), nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want canceled", err)
	}
}

func TestDiscoverClosedSocket(t *testing.T) {
	silent, c := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	_ = c.Close()
	if _, err := Discover(t.Context(), Config{Servers: []netip.AddrPort{local(silent)}}, c, nil); err == nil {
		t.Error("no error")
	}
}
