//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// behaviour is what a client behind a NAT finds out with two servers that have
// two ports each (RFC 5780).
type behaviour struct {
	mapping, filtering string // endpoint, address, port (dependent)
	keep               bool   // the inner port
	step               int    // between the ports for the four destinations, 0: none
}

// bench is a NAT with a client behind it and two servers before it.
type bench struct {
	t      *testing.T
	router *Host
	inside []*Host
	server *Host
	at     [2][2]*net.UDPConn // by address and port
	marks  int
}

var benchServers = []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")}

// newBench lays the routers from the outermost to the innermost, and hosts inside.
func newBench(t *testing.T, hosts int, nats ...NAT) *bench {
	t.Helper()
	l := ForTest(t)
	b := &bench{t: t, server: l.Host("server")}
	wan := l.LAN("wan", 0)
	b.server.Attach(wan, "eth0", prefixes("203.0.113.1/24", "203.0.113.2/24")...)
	outside, addr := wan, "203.0.113.10/24"
	for i, nat := range nats {
		inside := l.LAN("lan"+string(rune('0'+i)), 0)
		net4 := string(rune('1' + i))
		r := RouterConfig{
			Name: "router" + net4, WAN: outside, WANAddrs: prefixes(addr), LAN: inside, LANAddrs: prefixes("10." + net4 + ".0.1/24"), NAT: nat,
		}
		if i > 0 {
			r.Gateways = []netip.Addr{netip.MustParsePrefix(addr).Masked().Addr().Next()}
		}
		b.router = l.Router(r)
		outside, addr = inside, "10."+net4+".0.2/24"
	}
	for i := range hosts {
		h := l.Host("client" + string(rune('0'+i)))
		p := netip.MustParsePrefix(addr)
		for range i {
			p = netip.PrefixFrom(p.Addr().Next(), p.Bits())
		}
		h.Attach(outside, "eth0", p)
		gw := p.Masked().Addr().Next()
		h.Route(Route{Dst: Default(gw), Via: gw})
		b.inside = append(b.inside, h)
	}
	for i, a := range benchServers {
		for j := range b.at[i] {
			b.at[i][j] = b.listen(b.server, netip.AddrPortFrom(a, uint16(3478+j)))
		}
	}
	return b
}

func (b *bench) listen(h *Host, at netip.AddrPort) *net.UDPConn {
	b.t.Helper()
	c, err := h.ListenUDP(at)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// mapped returns the outer address of a socket towards a server.
func (b *bench) mapped(from, server *net.UDPConn) netip.AddrPort {
	b.t.Helper()
	return udpSource(b.t, from, server, server.LocalAddr().(*net.UDPAddr).AddrPort())
}

// passes reports whether a datagram from a server arrives at the other socket.
// want is what the caller expects: a busy machine may take its time to deliver.
func (b *bench) passes(server *net.UDPConn, outer netip.AddrPort, inner *net.UDPConn, want bool) bool {
	b.t.Helper()
	return received(b.t, inner, b.mark(server, outer), within(want))
}

func within(want bool) time.Duration {
	if want {
		return 5 * time.Second
	}
	return 200 * time.Millisecond
}

// mark sends something that only this call sends, and returns it.
func (b *bench) mark(server *net.UDPConn, outer netip.AddrPort) []byte {
	b.t.Helper()
	b.marks++
	mark := fmt.Appendf(nil, "%s %d", server.LocalAddr(), b.marks)
	if _, err := server.WriteToUDPAddrPort(mark, outer); err != nil {
		b.t.Fatal(err)
	}
	return mark
}

// lets is passes when nobody knows what to expect: what is sent after it from
// where the NAT surely lets it in comes out after it.
func (b *bench) lets(server *net.UDPConn, outer netip.AddrPort, inner *net.UDPConn) bool {
	b.t.Helper()
	probe, last := b.mark(server, outer), b.mark(b.at[0][0], outer)
	if err := inner.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		b.t.Fatal(err)
	}
	buf := make([]byte, 1500)
	for {
		n, _, err := inner.ReadFromUDPAddrPort(buf)
		if err != nil {
			b.t.Fatalf("not even an answer passes: %v", err)
		}
		switch string(buf[:n]) {
		case string(probe):
			return true
		case string(last):
			// They were sent from one thread after the other, perhaps.
			return received(b.t, inner, probe, 20*time.Millisecond)
		}
	}
}

// received waits for a datagram, skipping others.
func received(t *testing.T, c *net.UDPConn, want []byte, within time.Duration) bool {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1500)
	for {
		n, _, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
		if err == nil && string(buf[:n]) == string(want) {
			return true
		}
	}
}

// classify finds out how the NATs behave, with a new socket.
func (b *bench) classify(port uint16) behaviour {
	b.t.Helper()
	in := b.listen(b.inside[0], netip.AddrPortFrom(netip.IPv4Unspecified(), port))
	defer func() { _ = in.Close() }()
	var found behaviour
	first := b.mapped(in, b.at[0][0])
	found.keep = first.Port() == port
	switch {
	case b.lets(b.at[1][1], first, in):
		found.filtering = "endpoint"
	case b.lets(b.at[0][1], first, in):
		found.filtering = "address"
	default:
		found.filtering = "port"
	}
	second, third, fourth := b.mapped(in, b.at[0][1]), b.mapped(in, b.at[1][0]), b.mapped(in, b.at[1][1])
	switch {
	case first == second && first == third && first == fourth:
		found.mapping = "endpoint"
	case first == second && third == fourth:
		found.mapping = "address"
	default:
		found.mapping = "port"
		step := int(second.Port()) - int(first.Port())
		if step == int(third.Port())-int(second.Port()) && step == int(fourth.Port())-int(third.Port()) {
			found.step = step
		}
	}
	return found
}
