package vxlan

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	gheader "gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"corax/dataplane"
)

const testNIC = 1

// newTestStack makes a stack with one NIC, one address and its prefix's route.
func newTestStack(t testing.TB, link stack.LinkEndpoint, route netip.Prefix, addrs ...netip.Prefix) *stack.Stack {
	t.Helper()
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{arp.NewProtocol, ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	t.Cleanup(s.Destroy)
	if err := s.CreateNIC(testNIC, link); err != nil {
		t.Fatalf("NIC: %s", err)
	}
	for _, p := range addrs {
		proto := gheader.IPv4ProtocolNumber
		if p.Addr().Is6() {
			proto = gheader.IPv6ProtocolNumber
		}
		a := tcpip.ProtocolAddress{Protocol: proto, AddressWithPrefix: tcpip.AddressWithPrefix{
			Address: tcpip.AddrFromSlice(p.Addr().AsSlice()), PrefixLen: p.Bits(),
		}}
		if err := s.AddProtocolAddress(testNIC, a, stack.AddressProperties{}); err != nil {
			t.Fatalf("address %s: %s", p, err)
		}
	}
	subnet, err := tcpip.NewSubnet(tcpip.AddrFromSlice(route.Masked().Addr().AsSlice()), maskOf(route))
	if err != nil {
		t.Fatal(err)
	}
	s.AddRoute(tcpip.Route{Destination: subnet, NIC: testNIC})
	return s
}

func maskOf(p netip.Prefix) tcpip.AddressMask {
	b := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return tcpip.MaskFromBytes(b)
}

func fullAddr(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: testNIC, Addr: tcpip.AddrFromSlice(a.Addr().AsSlice()), Port: a.Port()}
}

// pod is a stack behind an Endpoint, as the fabric would have it: packets come
// by Send and leave for one VTEP.
type pod struct {
	*stack.Stack
	ch   *channel.Endpoint
	addr netip.Addr

	longest atomic.Int64 // packet that came, in bytes
}

func newPod(t testing.TB, addr netip.Addr) *pod {
	ch := channel.New(512, 1400, "")
	all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if addr.Is6() {
		all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	s := newTestStack(t, ch, all, netip.PrefixFrom(addr, addr.BitLen()))
	return &pod{Stack: s, ch: ch, addr: addr}
}

// Send is what the Endpoint calls.
func (p *pod) Send(batch []dataplane.Packet) {
	for _, in := range batch {
		if n := int64(len(in.Data)); n > p.longest.Load() { // one goroutine sends
			p.longest.Store(n)
		}
		proto := gheader.IPv4ProtocolNumber
		if in.Data[0]>>4 == 6 {
			proto = gheader.IPv6ProtocolNumber
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(in.Data)})
		p.ch.InjectInbound(proto, pkt)
		pkt.DecRef()
	}
}

// forward carries what the pod sends to a VTEP until the test ends.
func (p *pod) forward(t testing.TB, e *Endpoint, vtep netip.Addr) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	wg.Go(func() {
		for pkt := p.ch.ReadContext(ctx); pkt != nil; pkt = p.ch.ReadContext(ctx) {
			view := pkt.ToView()
			e.Send([]dataplane.Packet{{Data: view.AsSlice(), VTEP: vtep}})
			view.Release()
			pkt.DecRef()
		}
	})
}

func (p *pod) proto() tcpip.NetworkProtocolNumber {
	if p.addr.Is6() {
		return gheader.IPv6ProtocolNumber
	}
	return gheader.IPv4ProtocolNumber
}

func (p *pod) listen(t testing.TB, port uint16) *gonet.TCPListener {
	t.Helper()
	l, err := gonet.ListenTCP(p.Stack, fullAddr(netip.AddrPortFrom(p.addr, port)), p.proto())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// run runs an Endpoint until the test ends.
func run(t testing.TB, e *Endpoint) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
}
