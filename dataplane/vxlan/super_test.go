package vxlan

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	gheader "gvisor.dev/gvisor/pkg/tcpip/header"

	"corax/dataplane"
	"corax/dataplane/internal/udpbatch"
)

// tcpPacket makes a TCP packet of node's pod whose checksum is open, as a kernel
// leaves it, or complete. It has 12 bytes of options, and FIN and PSH set.
func tcpPacket(v6, open bool, seq uint32, payload []byte) []byte {
	l4 := make([]byte, 32, 32+len(payload))
	binary.BigEndian.PutUint16(l4, 40000)
	binary.BigEndian.PutUint16(l4[2:], 80)
	binary.BigEndian.PutUint32(l4[4:], seq)
	l4[12], l4[13] = 8<<4, byte(gheader.TCPFlagAck|gheader.TCPFlagPsh|gheader.TCPFlagFin)
	copy(l4[20:], []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8})
	l4 = append(l4, payload...)
	pkt, addrs := ip4("10.244.3.9", "10.99.1.1", protoTCP, l4), [2]int{12, 20}
	if v6 {
		pkt, addrs = ip6("fd00:3::9", "fd00:99::1", protoTCP, l4), [2]int{8, 40}
	}
	l4 = pkt[addrs[1]:]
	sum := checksum.Checksum(pkt[addrs[0]:addrs[1]], checksum.Combine(protoTCP, uint16(len(l4))))
	if !open {
		sum = ^checksum.Checksum(l4, sum)
	}
	binary.BigEndian.PutUint16(l4[16:], sum)
	return pkt
}

// tcpOf checks the lengths and checksums of a TCP packet and returns its parts.
func tcpOf(t *testing.T, pkt []byte) (tcp gheader.TCP, payload []byte) {
	t.Helper()
	var src, dst []byte
	if pkt[0]>>4 == 4 {
		ip := gheader.IPv4(pkt)
		if !ip.IsValid(len(pkt)) || int(ip.TotalLength()) != len(pkt) || !ip.IsChecksumValid() {
			t.Fatalf("bad IPv4 header % x", pkt[:20])
		}
		src, dst, tcp = pkt[12:16], pkt[16:20], gheader.TCP(pkt[20:])
	} else {
		if n := int(gheader.IPv6(pkt).PayloadLength()); n+ipv6Len != len(pkt) {
			t.Fatalf("IPv6 payload length %d of a packet of %d bytes", n, len(pkt))
		}
		src, dst, tcp = pkt[8:24], pkt[24:40], gheader.TCP(pkt[40:])
	}
	sum := checksum.Checksum(src, checksum.Checksum(dst, checksum.Combine(protoTCP, uint16(len(tcp)))))
	if checksum.Checksum(tcp, sum) != 0xffff {
		t.Fatalf("bad TCP checksum in a packet of %d bytes", len(pkt))
	}
	return tcp, tcp.Payload()
}

// TestSuper gives the receiver what a kernel on the same computer sends: packets
// of up to 64 KiB, between others, with every piece checked.
func TestSuper(t *testing.T) {
	for _, tt := range []struct {
		name   string
		v6     bool
		open   bool
		sizes  []int // of payloads
		supers int
	}{
		{"complete packets stay", false, false, []int{1308, 1398, 5000}, 0},
		{"small open packets stay", false, true, []int{0, 1, 1308}, 0},
		{"one byte more", false, true, []int{1309}, 1},
		{"largest, v4", false, true, []int{65535 - 52}, 1},
		{"largest, v6", true, true, []int{65535 - 32}, 1},
		{"mixed, more than a batch", true, true, []int{10, 60000, 1200, 60000, 60000, 5}, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got [][]byte
			e := newEndpoint(t, self, freePort(t), func(batch []dataplane.Packet) {
				for _, p := range batch {
					if p.VTEP != node {
						t.Errorf("a packet from %s", p.VTEP)
					}
					got = append(got, bytes.Clone(p.Data))
				}
			})
			e.SetVTEPs(testVTEPs())
			rng := rand.New(rand.NewPCG(1, 2))
			var in []udpbatch.Datagram
			var want []byte
			seq := ^uint32(0) - 1000 // wraps
			first := seq
			typ := uint16(typeIPv4)
			if tt.v6 {
				typ = typeIPv6
			}
			for _, n := range tt.sizes {
				payload := make([]byte, n)
				for i := range payload {
					payload[i] = byte(rng.Uint32())
				}
				frame := datagram(NodeMAC(self), NodeMAC(node), typ, tcpPacket(tt.v6, tt.open, seq, payload))
				in = append(in, udpbatch.Datagram{Data: frame, From: netip.AddrPortFrom(node, 54321)})
				want = append(want, payload...)
				seq += uint32(n)
			}
			newReceiver(e).take(in, time.Unix(1000, 0))

			var data []byte
			next, ends, whole := first, 0, 0
			for _, pkt := range got {
				tcp, payload := tcpOf(t, pkt)
				if tcp.SequenceNumber() != next {
					t.Fatalf("sequence number %d, want %d", tcp.SequenceNumber(), next)
				}
				if !bytes.Equal(tcp.Options(), []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}) {
					t.Fatalf("options % x", tcp.Options())
				}
				if tcp.Flags().Contains(gheader.TCPFlagFin) {
					ends++
				}
				if len(pkt) > pieceMTU {
					whole++
				}
				next += uint32(len(payload))
				data = append(data, payload...)
			}
			if !bytes.Equal(data, want) {
				t.Errorf("%d bytes arrived, not the %d that were sent", len(data), len(want))
			}
			if ends != len(tt.sizes) {
				t.Errorf("%d packets with FIN, want one for each of %d", ends, len(tt.sizes))
			}
			if large := countOver(tt.sizes, tt.v6, pieceMTU); whole != large-tt.supers {
				t.Errorf("%d packets are longer than a piece, want %d", whole, large-tt.supers)
			}
			if n := e.count.supers.Load(); n != uint64(tt.supers) {
				t.Errorf("%d counted as super, want %d", n, tt.supers)
			}
			if n := e.count.rx.Load(); n != uint64(len(got)) {
				t.Errorf("%d packets counted, %d given", n, len(got))
			}
		})
	}
}

// countOver counts the packets of given payloads that are longer than mtu.
func countOver(sizes []int, v6 bool, mtu int) int {
	headers, n := ipv4Len+32, 0
	if v6 {
		headers = ipv6Len + 32
	}
	for _, s := range sizes {
		if s+headers > mtu {
			n++
		}
	}
	return n
}

// TestSuperMalformed: a TCP header that contradicts the packet.
func TestSuperMalformed(t *testing.T) {
	var got []dataplane.Packet
	e := newEndpoint(t, self, freePort(t), func(batch []dataplane.Packet) { got = append(got, batch...) })
	e.SetVTEPs(testVTEPs())
	for _, offset := range []byte{0, 4} {
		pkt := tcpPacket(false, true, 1, make([]byte, 2000))
		pkt[ipv4Len+12] = offset << 4 // in words; TCP's header has at least 5
		if d := takeOne(t, e, &got, node, datagram(NodeMAC(self), NodeMAC(node), typeIPv4, pkt)); d != dropMalformed || len(got) != 0 {
			t.Errorf("data offset %d: %s, %d packets", offset, d, len(got))
		}
	}
}
