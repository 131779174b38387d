//go:build linux

package tunnel_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"corax/integration/lab"
)

const (
	vxlanPort   = 4472
	vxlanMarker = 6666 // UDP port of what must not arrive anywhere
)

// segmentMAC is the MAC of a node on the VXLAN segment.
func segmentMAC(node netip.Addr) []byte {
	ip := node.AsSlice()
	return append([]byte{0xaa, 0x0f, 240}, ip[len(ip)-3:]...)
}

// vxlanFrame makes a good VXLAN datagram.
func vxlanFrame(dst, src []byte, etherType uint16, payload []byte) []byte {
	b := []byte{8, 0, 0, 0, 0, 0, 200, 0}
	b = append(append(b, dst...), src...)
	return append(binary.BigEndian.AppendUint16(b, etherType), payload...)
}

func with(b []byte, at int, v byte) []byte {
	b = bytes.Clone(b)
	b[at] = v
	return b
}

// arp asks for an address on the segment.
func arp(mac []byte, sender, target netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 1}
	b = append(append(b, mac...), sender.AsSlice()...)
	return append(append(b, 0, 0, 0, 0, 0, 0), target.AsSlice()...)
}

// intruder is a host on the LAN of the cloud that pretends to be its plain node.
type intruder struct {
	*faults
	*spoofer
	node, gw *lab.Node
	// Where datagrams come from and go to.
	vtep, own, target netip.AddrPort
	me, to            []byte // MACs
	escaped           []*lab.Capture
}

func newIntruder(t *testing.T, f *faults) *intruder {
	t.Helper()
	h := f.Lab.Host("intruder")
	h.Attach(f.cloud().LAN, "eth0", netip.MustParsePrefix("203.0.113.200/25"), netip.MustParsePrefix("2001:db8:0:c::200/64"))
	i := &intruder{faults: f, spoofer: newSpoofer(t, h), gw: f.cloud().Nodes[0], node: f.cloud().Nodes[1]}
	i.vtep, i.target = netip.AddrPortFrom(i.node.IP, 50000), netip.AddrPortFrom(i.gw.IP, vxlanPort)
	i.own = netip.MustParseAddrPort("203.0.113.200:4472")
	if i.gw.IP.Is6() {
		i.own = netip.MustParseAddrPort("[2001:db8:0:c::200]:4472")
	}
	i.me, i.to = segmentMAC(i.node.IP), segmentMAC(i.gw.IP)
	for _, n := range f.Nodes() {
		c, err := n.Pods[0].Capture("eth0", func(p lab.Frame) bool { return p.DstPort == vxlanMarker })
		if err != nil {
			t.Fatal(err)
		}
		i.escaped = append(i.escaped, c)
	}
	return i
}

// contained checks that nothing of the intruder's came through.
func (i *intruder) contained() {
	i.faults.t.Helper()
	for _, c := range i.escaped {
		if n := c.Count(); n > 0 {
			f := c.Frames()[0]
			i.faults.t.Errorf("%s got %d packets of the intruder's, one from %v to %v", c.Host.Name, n, f.Src, f.Dst)
		}
	}
}

// TestHostileVXLAN sends what no node would, with the address of one: each
// datagram is counted once under the reason that the documentation gives, and
// none arrives anywhere.
func TestHostileVXLAN(t *testing.T) {
	f := newFaults(t, lab.Options{})
	i := newIntruder(t, f)
	var (
		far     = f.edge().Nodes[1].Pods[0]
		pod     = i.node.Pods[0]
		marker  = udp(1, vxlanMarker, []byte("not for you"))
		addr    = netip.MustParseAddr
		segment = func(n *lab.Node) netip.Addr { ip := n.IP.As4(); ip[0] = 240; return netip.AddrFrom4(ip) }
		frame4  = func(src, dst netip.Addr) []byte {
			return vxlanFrame(i.to, i.me, unix.ETH_P_IP, ipv4(src, dst, unix.IPPROTO_UDP, 64, 0, marker))
		}
		frame6 = func(src, dst netip.Addr) []byte {
			return vxlanFrame(i.to, i.me, unix.ETH_P_IPV6, ipv6(src, dst, unix.IPPROTO_UDP, 64, marker))
		}
		inner = func(p []byte) []byte { return vxlanFrame(i.to, i.me, unix.ETH_P_IP, p) }
		good  = frame4(pod.IP, far.IP)
		over  = addr(f.status(f.hub()).OverlayAddress)
		// The overlay prefix is everybody's; this address is nobody's.
		nobody = addr("fd63:6f72:6178::bad")
	)
	const vx, fabric = "vxlan_drop_total", "fabric_drop_total"
	for _, tt := range []struct {
		name, counter, reason string
		from                  netip.AddrPort
		b                     []byte
	}{
		{"a host that is no node", vx, "unknown_vtep", i.own, good},
		{"an address that nobody has", vx, "unknown_vtep", netip.MustParseAddrPort("203.0.113.250:4472"), good},
		{"a node of another domain", vx, "unknown_vtep", netip.AddrPortFrom(f.edge().Nodes[1].IP, 4472), good},
		{"short", vx, "short", i.vtep, good[:5]},
		{"a header alone", vx, "short", i.vtep, good[:8]},
		{"no VNI flag", vx, "flags", i.vtep, with(good, 0, 0)},
		{"another VNI", vx, "vni", i.vtep, with(good, 6, 201)},
		{"another MAC", vx, "mac", i.vtep, with(good, 8, 2)},
		{"a pod's packet to everybody", vx, "mac", i.vtep, vxlanFrame([]byte{255, 255, 255, 255, 255, 255}, i.me, unix.ETH_P_IP, good[22:])},
		{"a VLAN tag", vx, "ethertype", i.vtep, vxlanFrame(i.to, i.me, unix.ETH_P_8021Q, good[22:])},
		{"no IP", vx, "malformed", i.vtep, inner([]byte("GET / HTTP/1.1\r\n\r\n"))},
		{"a length past the end", vx, "malformed", i.vtep, with(good, 22+3, 255)},
		{"IPv6 marked as IPv4", vx, "malformed", i.vtep, vxlanFrame(i.to, i.me, unix.ETH_P_IP, ipv6(pod.IP6, far.IP6, 17, 64, marker))},
		{"source: a pod of the gateway node", vx, "source", i.vtep, frame4(i.gw.Pods[0].IP, far.IP)},
		{"source: a pod of another domain", vx, "source", i.vtep, frame4(far.IP, i.gw.Pods[0].IP)},
		{"source: a public address", vx, "source", i.vtep, frame4(addr("198.51.100.1"), far.IP)},
		{"source: the node's own address", vx, "source", i.vtep, frame4(i.node.IP, far.IP)},
		{"source: a v6 pod of another domain", vx, "source", i.vtep, frame6(far.IP6, i.gw.Pods[0].IP6)},
		{"source: overlay, to a pod", vx, "source", i.vtep, frame6(nobody, far.IP6)},
		{"source: overlay, to another agent", vx, "source", i.vtep, frame6(nobody, addr(f.status(f.edge().Agents[0]).OverlayAddress))},
		{"source: the overlay address of a gateway node of another domain", fabric, "overlay_source", i.vtep, frame6(addr(f.status(f.edge().Agents[0]).OverlayAddress), over)},
		{"source: a public v6 address, to the overlay", vx, "source", i.vtep, frame6(addr("2001:db8::1"), over)},
		{"ARP that claims the gateway node's address", vx, "source", i.vtep, vxlanFrame(i.to, i.me, unix.ETH_P_ARP, arp(i.me, segment(i.gw), segment(i.gw)))},
		{"half an ARP", vx, "malformed", i.vtep, vxlanFrame(i.to, i.me, unix.ETH_P_ARP, []byte{0, 1, 8, 0, 6, 4})},
		{"UDP to a link-local address", vx, "segment_protocol", i.vtep, frame6(addr("fe80::1"), addr("fe80::2"))},

		{"to loopback", fabric, "martian_destination", i.vtep, frame4(pod.IP, addr("127.0.0.1"))},
		{"to v6 loopback", fabric, "martian_destination", i.vtep, frame6(pod.IP6, addr("::1"))},
		{"to multicast", fabric, "multicast", i.vtep, frame4(pod.IP, addr("224.0.0.5"))},
		{"to an IPv4 link-local address", fabric, "link_local", i.vtep, frame4(pod.IP, addr("169.254.169.254"))},
		{"to the Internet", fabric, "no_route", i.vtep, frame4(pod.IP, addr("198.51.100.1"))},
		{"to the gateway node itself", fabric, "no_route", i.vtep, frame4(pod.IP, i.gw.IP)},
		{"to where it comes from", fabric, "hairpin", i.vtep, frame4(pod.IP, pod.IP.Next())},
		{"TTL 1", fabric, "ttl", i.vtep, inner(ipv4(pod.IP, far.IP, unix.IPPROTO_UDP, 1, 0, marker))},
		{"a fragment beyond the end", fabric, "bad_fragment", i.vtep, inner(ipv4(pod.IP, far.IP, unix.IPPROTO_UDP, 64, 0x1fff, marker))},
		{"a wrong header checksum", fabric, "bad_checksum", i.vtep, with(good, 22+11, good[22+11]^1)},
		{"too big with DF", fabric, "too_big", i.vtep, inner(ipv4(pod.IP, far.IP, unix.IPPROTO_UDP, 64, 0x4000, append(bytes.Clone(marker), make([]byte, 1400)...)))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.countsOnce(t, f.hub(), tt.counter+"{"+tt.reason+"}", func() { i.send(tt.from, i.target, tt.b) })
		})
	}
	i.contained()
	f.undisturbed()
}

// TestHostileVXLAN6 does the same over an IPv6 underlay, as far as that differs.
func TestHostileVXLAN6(t *testing.T) {
	f := newFaults(t, lab.Options{V6Underlay: true})
	i := newIntruder(t, f)
	pod, far := i.node.Pods[0].IP6, f.edge().Nodes[1].Pods[0].IP6
	frame := func(src netip.Addr) []byte {
		return vxlanFrame(i.to, i.me, unix.ETH_P_IPV6, ipv6(src, far, unix.IPPROTO_UDP, 64, udp(1, vxlanMarker, nil)))
	}
	for _, tt := range []struct {
		name, reason string
		from         netip.AddrPort
		b            []byte
	}{
		{"a host that is no node", "unknown_vtep", i.own, frame(pod)},
		{"a node of another domain", "unknown_vtep", netip.AddrPortFrom(f.edge().Nodes[1].IP, 4472), frame(pod)},
		{"a pod of the gateway node", "source", i.vtep, frame(i.gw.Pods[0].IP6)},
		{"a pod of another domain", "source", i.vtep, frame(far)},
		{"another MAC", "mac", i.vtep, with(frame(pod), 8, 2)},
		{"a header alone", "short", i.vtep, frame(pod)[:8]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.countsOnce(t, f.hub(), "vxlan_drop_total{"+tt.reason+"}", func() { i.send(tt.from, i.target, tt.b) })
		})
	}
	i.contained()
	f.undisturbed()
}

// TestHostileVXLANFlood sends bursts of damaged datagrams, of ARP and of new
// MACs, as fast as it can: memory stays where it was, the agent answers, and
// the transfer goes on.
func TestHostileVXLANFlood(t *testing.T) {
	f := newFaults(t, lab.Options{})
	i := newIntruder(t, f)
	before := resident(t, f.hub().Process())
	far := f.edge().Nodes[1].Pods[0].IP
	good := vxlanFrame(i.to, i.me, unix.ETH_P_IP, ipv4(i.gw.Pods[0].IP, far, unix.IPPROTO_UDP, 64, 0, udp(1, vxlanMarker, make([]byte, 64))))
	random := rand.New(rand.NewPCG(1, 2))
	for n := range 60_000 {
		from := i.vtep
		if n%4 == 0 {
			from = i.own
		}
		b := bytes.Clone(good[:8+random.IntN(len(good)-7)])
		for range random.IntN(8) {
			at := random.IntN(len(b))
			if at < 8 && n%8 != 0 {
				continue // mostly the VXLAN header stays good, so that the rest is looked at
			}
			b[at] = byte(random.Uint32())
		}
		i.send(from, i.target, b)
	}
	segment := netip.MustParseAddr("240.0.113.131")
	for n := range 20_000 {
		mac := []byte{2, 0, 0, 0, byte(n >> 8), byte(n)}
		i.send(i.vtep, i.target, vxlanFrame(i.to, mac, unix.ETH_P_ARP, arp(mac, segment, netip.MustParseAddr("240.0.113.130"))))
	}
	for _, name := range []string{"vxlan_drop_total{segment_rate}", "vxlan_drop_total{unknown_vtep}"} {
		f.await(t, f.hub(), 10*time.Second, counted(name, 100))
	}
	// Slow enough for the rate limit, so that each MAC is seen.
	for n := range 2000 {
		mac := []byte{2, 1, 0, 0, byte(n >> 8), byte(n)}
		p := ipv4(i.node.Pods[0].IP, i.node.Pods[0].IP.Next(), unix.IPPROTO_UDP, 64, 0, udp(1, vxlanMarker, nil))
		i.send(i.vtep, i.target, vxlanFrame(i.to, mac, unix.ETH_P_IP, p))
	}
	f.await(t, f.hub(), 10*time.Second, counted("vxlan_learn_drop_total{full}", 100))
	f.bounded(t, f.hub(), before)
	i.contained()
	f.undisturbed()
}
