package inner

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"corax/dataplane/netstack"
)

func message(seq uint16, size int) []byte {
	return append(binary.BigEndian.AppendUint16(nil, seq), bytes.Repeat([]byte("p"), size)...)
}

func (r *rig) ping(t *testing.T, from, to netip.Addr) net.Conn {
	t.Helper()
	c, err := r.from.DialPing(t.Context(), from, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

func TestPing(t *testing.T) {
	program6 := netip.MustParseAddr("fd72:756e::2")
	for _, tt := range []struct {
		name, to string
		err      error
		reason   string
	}{
		{"IPv4", "10.2.0.9", nil, ""},
		{"IPv6", "fd00:2::9", nil, ""},
		{"IPv4, forbidden", "10.2.0.66", syscall.EACCES, "forbidden"},
		{"IPv6, forbidden", "fd00:2::42", syscall.EACCES, "forbidden"},
		{"IPv4, unreachable", "10.2.0.67", syscall.EHOSTUNREACH, "unreachable"},
		{"IPv6, unreachable", "fd00:2::43", syscall.EHOSTUNREACH, "unreachable"},
		{"the name server", "192.0.0.1", syscall.EACCES, "forbidden"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, Config{})
			to, from := netip.MustParseAddr(tt.to), program
			if to.Is6() {
				from = program6
			}
			c := r.ping(t, from, to)
			b := make([]byte, maxDatagram)
			for seq, size := range []int{56, 0, 20000} {
				said := message(uint16(seq), size)
				if _, err := c.Write(said); err != nil {
					t.Fatal(err)
				}
				n, err := c.Read(b)
				if !errors.Is(err, tt.err) || err == nil && !bytes.Equal(b[:n], said) {
					t.Errorf("%d bytes: %d came back, error %v, want %v", size, n, err, tt.err)
				}
			}
			if tt.err != nil {
				if n := r.counter("run_drop_total", tt.reason); n != 3 {
					t.Errorf("counted %d times", n)
				}
				return
			}
			if n := r.counter("run_pings_total", ""); n != 1 {
				t.Errorf("%d flows for one identifier", n)
			}
			if all := strings.Join(r.d.dialled, ", "); all != "ping "+tt.to {
				t.Error("dialled " + all)
			}
		})
	}
}

// TestPingLimits: what is too much is dropped and counted; UDP has room of its own.
func TestPingLimits(t *testing.T) {
	r := newRig(t, Config{Flows: 1, Pings: 2})
	b := make([]byte, 100)
	for i := range 3 {
		c := r.ping(t, program, pod)
		if _, err := c.Write(message(1, 10)); err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			r.wait(t, "run_drop_total", "full", 1)
			break
		}
		if _, err := c.Read(b); err != nil {
			t.Error(err)
		}
	}
	u, err := r.from.DialUDP(t.Context(), program, netip.AddrPortFrom(pod, portEcho))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	_ = u.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := u.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Read(b); err != nil {
		t.Error(err)
	}
	if _, err := New(Config{Dialer: r.d, Pings: -1}); err == nil {
		t.Error("fewer than none")
	}
}

// TestPingConn: what a ping connection of the stack says of itself.
func TestPingConn(t *testing.T) {
	r := newRig(t, Config{})
	for _, tt := range [][2]string{{"10.2.0.1", "fd00:2::9"}, {"10.2.0.1", "224.0.0.1"}, {"fd00:2::1", "fe80::1%lo"}} {
		if c, err := r.from.DialPing(t.Context(), netip.MustParseAddr(tt[0]), netip.MustParseAddr(tt[1])); err == nil {
			_ = c.Close()
			t.Errorf("%q", tt)
		}
	}
	c := r.ping(t, program, pod)
	if _, err := c.Write([]byte{1}); !errors.Is(err, syscall.EINVAL) {
		t.Error(err)
	}
	if _, err := c.Write(message(1, 65530)); !errors.Is(err, syscall.EMSGSIZE) {
		t.Error(err)
	}
	_ = c.SetReadDeadline(time.Unix(1, 0))
	var timeout net.Error
	if _, err := c.Read(make([]byte, 10)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Error(err)
	}
	if got := fmt.Sprint(c.LocalAddr(), " ", c.RemoteAddr()); got != program.String()+" "+pod.String() {
		t.Error(got)
	}
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Error(err)
	}
	if _, err := c.Write(message(1, 1)); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	_ = c.SetReadDeadline(time.Time{})
	if _, err := c.Read(make([]byte, 10)); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	for n := 0; ; n++ {
		c, err := r.from.DialPing(t.Context(), program, pod)
		if errors.Is(err, netstack.ErrTooManyPings) && n == 256 {
			break
		}
		if err != nil || n > 256 {
			t.Fatalf("connection %d: %v", n, err)
		}
		defer c.Close()
	}
}
