//go:build linux

package tunnel_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"corax/integration/lab"
)

// siteMTU is what the stack of an agent without a TUN has for every peer, in bytes.
const siteMTU = 1360

// TestTCPOverSmallLinks: TCP passes links that are smaller than the agents assume
// at first, although no router says so, and no ICMP error reaches a pod: probes
// find out, and the MSS alone must be right.
func TestTCPOverSmallLinks(t *testing.T) {
	for _, tt := range []struct {
		lan, wan int
		v6       bool
		mtu      int // inner, between plain nodes
		path     int // inner, between gateway nodes, as probes find it
	}{
		{1500, 1500, false, 1360, 1408},
		{1500, 1400, false, 1328, 1328},
		{1500, 1280, false, 1216, 1216},
		{1400, 1500, false, 1328, 1328},
		{1280, 1280, false, 1216, 1216},
		{1500, 1500, true, 1360, 1408},
		{1500, 1400, true, 1312, 1312},
		{1500, 1280, true, 1200, 1200},
		{1400, 1500, true, 1312, 1312},
		{1280, 1280, true, 1200, 1200},
	} {
		family := 4
		if tt.v6 {
			family = 6
		}
		t.Run(fmt.Sprintf("LAN %d WAN %d over IPv%d", tt.lan, tt.wan, family), func(t *testing.T) {
			topo := mtuLab(t, lab.Options{LANMTU: tt.lan, WANMTU: tt.wan, V6Underlay: tt.v6, DropICMP: true})
			cloud, edge := topo.Domains[0].Nodes, topo.Domains[1].Nodes
			awaitMTU(t, topo, tt.path)
			for _, n := range topo.Nodes() {
				n.DropICMP() // also those that the kernel and the fabric make
			}
			direct := tt.path
			if edge[0].Detoured() {
				direct = min(direct, siteMTU)
			}
			for _, w := range []struct {
				name string
				from *lab.Host
				to   *lab.Pod
				mtu  int // as the SYN says it, and the answer to it
			}{
				{"plain to plain", edge[1].Pods[0].Host, cloud[1].Pods[0], tt.mtu},
				{"hub to plain", cloud[0].Pods[0].Host, edge[1].Pods[0], tt.mtu},
				{"gateway to gateway", edge[0].Pods[0].Host, cloud[0].Pods[0], direct},
				{"hub to gateway", cloud[0].Pods[0].Host, edge[0].Pods[0], direct},
				{"host to plain", edge[1].Host, cloud[1].Pods[0], tt.mtu},
			} {
				for _, to := range []netip.Addr{w.to.IP, w.to.IP6} {
					if err := tcpPasses(t, w.from, w.to, to, w.mtu); err != nil {
						t.Fatalf("%s: %v", w.name, err) // the others would fail alike, and take their time
					}
				}
			}
		})
	}
}

// awaitMTU waits until edge and hub know the MTU of the path between them.
func awaitMTU(t *testing.T, topo *lab.Topology, mtu int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for i, d := range topo.Domains { // the edge tells the hub
		peer := topo.Domains[1-i].Nodes[0].Name
		err := d.Agents[0].WaitStatus(ctx, func(s *lab.Status) error {
			if p := s.Peer(peer); p == nil || p.MTU != mtu {
				return fmt.Errorf("the path's MTU is not %d: %+v", mtu, p)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// tcpPasses sends 3 MB each way, and looks at the SYN and the SYN ACK where they
// arrive. A connection that ends in an agent on one side has a tunnel on the other one
// only.
func tcpPasses(t *testing.T, from *lab.Host, pod *lab.Pod, to netip.Addr, mtu int) error {
	t.Helper()
	srv, err := pod.Serve(mtuPort, to)
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	syns := &synWatch{port: mtuPort}
	at, err := pod.Capture("eth0", syns.see)
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	link := "eth0"
	if isNode(from) {
		link = "corax0"
	}
	back, err := from.Capture(link, syns.see)
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := from.Transfer(ctx, netip.AddrPortFrom(to, mtuPort), 3<<20); err != nil {
		return err
	}
	want := mtu - 40
	if to.Is6() {
		want = mtu - 60
	}
	if got := mssOf(at, false); got != want && !pod.Detoured() {
		t.Errorf("to %s: MSS of the SYN at the receiver is %d, want %d", to, got, want)
	}
	if got := mssOf(back, true); got != want && !from.Detoured() {
		t.Errorf("to %s: MSS of the SYN ACK at the sender is %d, want %d", to, got, want)
	}
	return nil
}

// isNode reports whether h is a node and not a pod.
func isNode(h *lab.Host) bool {
	_, err := h.Netlink().LinkByName(lab.CNIBridge)
	return err == nil
}

// synWatch wants the SYNs of one port.
type synWatch struct{ port uint16 }

func (w *synWatch) see(f lab.Frame) bool {
	b := tcpHeader(f)
	return !f.Outgoing && (f.DstPort == w.port || f.SrcPort == w.port) && len(b) >= 20 && b[13]&2 != 0
}

// tcpHeader returns the frame's bytes from its TCP header on; nil when it has
// none.
func tcpHeader(f lab.Frame) []byte {
	if f.Protocol != unix.IPPROTO_TCP {
		return nil
	}
	p := ipPacket(f)
	if f.Src.Is4() {
		return p[int(p[0]&15)*4:]
	}
	return p[40:]
}

// ipPacket returns the frame's bytes from its IP header on. A TUN has no other
// in front.
func ipPacket(f lab.Frame) []byte {
	p := f.Data
	if len(p) > 14 && (binary.BigEndian.Uint16(p[12:]) == unix.ETH_P_IP && p[14]>>4 == 4 ||
		binary.BigEndian.Uint16(p[12:]) == unix.ETH_P_IPV6 && p[14]>>4 == 6) {
		return p[14:]
	}
	return p
}

// mssOf returns the MSS of the one SYN, or SYN ACK, that was captured; 0 when
// there is none, -1 when they differ.
func mssOf(c *lab.Capture, ack bool) int {
	found := 0
	for _, f := range c.Frames() {
		b := tcpHeader(f)
		if (b[13]&0x10 != 0) != ack {
			continue
		}
		mss := 0
		for o := b[20:min(int(b[12]>>4)*4, len(b))]; len(o) >= 2 && o[0] != 0; {
			if o[0] == 1 {
				o = o[1:]
				continue
			}
			if o[0] == 2 && len(o) >= 4 {
				mss = int(binary.BigEndian.Uint16(o[2:]))
			}
			o = o[min(max(int(o[1]), 2), len(o)):]
		}
		if found != 0 && found != mss {
			return -1
		}
		found = mss
	}
	return found
}

// isSTUN reports whether a frame is a probe, which may find out that it is too big.
func isSTUN(f lab.Frame) bool {
	return bytes.Contains(f.Data[:min(len(f.Data), 100)], []byte{0x21, 0x12, 0xa4, 0x42})
}

// TestOuterPackets: over IPv4 what the agents send may be fragmented on the way.
// Over IPv6 it may not, and the kernel fragments what is larger than the smallest
// link, once a router said so.
func TestOuterPackets(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		name := "IPv4"
		if v6 {
			name = "IPv6"
		}
		t.Run(name, func(t *testing.T) {
			topo := mtuLab(t, lab.Options{V6Underlay: v6, WANMTU: 1300})
			cloud, edge := topo.Domains[0].Nodes[1], topo.Domains[1].Nodes[1]
			mtu := 1232
			if v6 {
				mtu = 1216
			}
			awaitMTU(t, topo, mtu)
			var caps []*lab.Capture
			for _, n := range topo.Nodes() {
				c, err := n.Capture("eth0", outerPacket)
				if err != nil {
					t.Fatal(err)
				}
				caps = append(caps, c)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			// One at a time: what is joined for the network card has no size
			// of its own.
			for _, size := range []int{100, 1100, 1300, 1360} {
				for _, to := range []netip.Addr{cloud.Pods[0].IP, cloud.Pods[0].IP6} {
					// What the path does not carry must not have DF; IPv6 has
					// none, and no router of it cuts what is too big.
					if size > mtu && (v6 || to.Is6()) {
						continue
					}
					if _, err := edge.Pods[0].PingUntil(ctx, to, lab.PingOptions{Size: size, DF: size <= 1100}); err != nil {
						t.Errorf("%d bytes: %v", size, err)
					}
				}
			}
			wireguard, vxlan, large := 0, 0, 0
			for _, c := range caps {
				for _, f := range c.Frames() {
					p := ipPacket(f)
					if f.SrcPort == 4472 || f.DstPort == 4472 {
						vxlan++
					} else {
						wireguard++
					}
					if f.Src.Is4() && p[6]&0x40 != 0 {
						t.Errorf("%s: %s > %s, %d bytes: DF is set", c.Host.Name, f.Src, f.Dst, f.Len)
					}
					if f.Src.Is6() && f.DstPort != 4472 && f.Len-14 > 1300 && !isSTUN(f) {
						large++
					}
				}
			}
			// Each way may lose one, seen at its sender only.
			if large > 2 {
				t.Errorf("%d outer packets of more than the 1300 bytes that the path carries, after the first one each way", large)
			}
			if wireguard < 16 || vxlan < 32 {
				t.Errorf("saw %d WireGuard and %d VXLAN packets", wireguard, vxlan)
			}
		})
	}
}

// outerPacket wants what leaves or reaches a tunnel or VXLAN port, and IPv6
// fragments.
func outerPacket(f lab.Frame) bool {
	for _, p := range []uint16{f.SrcPort, f.DstPort} {
		if p == 4472 || p == 4500 {
			return f.Protocol == unix.IPPROTO_UDP
		}
	}
	return f.Protocol == unix.IPPROTO_FRAGMENT
}
