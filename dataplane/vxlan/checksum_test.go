package vxlan

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// TestCompleteChecksum makes the packets that a kernel leaves open and compares
// with the sum done whole; what is complete, or no business of ours, stays.
func TestCompleteChecksum(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 2000 {
		proto, at, least := byte(protoTCP), 16, 20
		if rng.IntN(2) == 0 {
			proto, at, least = protoUDP, 6, 8
		}
		l4 := make([]byte, least+rng.IntN(60))
		for i := range l4 {
			l4[i] = byte(rng.Uint32())
		}
		pkt, etherType, addrs := ip4("10.1.2.3", "10.4.5.6", proto, l4), uint16(typeIPv4), []int{12, 20}
		if rng.IntN(2) == 0 {
			pkt, etherType, addrs = ip6("fd00::1", "fd00::2", proto, l4), typeIPv6, []int{8, 40}
		}
		l4 = pkt[addrs[1]:]
		pseudo := checksum.Checksum(pkt[addrs[0]:addrs[1]], checksum.Combine(uint16(proto), uint16(len(l4))))

		// Whole: the field is zero while summing (RFC 768, RFC 9293).
		clear(l4[at : at+2])
		whole := bytes.Clone(pkt)
		sum := ^checksum.Checksum(l4, pseudo)
		if sum == 0 && proto == protoUDP {
			sum = 0xffff
		}
		binary.BigEndian.PutUint16(whole[addrs[1]+at:], sum)

		binary.BigEndian.PutUint16(l4[at:], pseudo)
		completeChecksum(etherType, pkt)
		if !bytes.Equal(pkt, whole) {
			t.Fatalf("completed %x\nwant      %x", pkt, whole)
		}
		completeChecksum(etherType, pkt)
		if !bytes.Equal(pkt, whole) {
			t.Fatal("a complete checksum was changed")
		}
	}
	for name, pkt := range map[string][]byte{
		"no checksum":    ip4("10.1.2.3", "10.4.5.6", protoUDP, make([]byte, 8)),
		"other protocol": ip4("10.1.2.3", "10.4.5.6", 1, make([]byte, 40)),
		"short udp":      ip4("10.1.2.3", "10.4.5.6", protoUDP, make([]byte, 7)),
		"short tcp":      ip4("10.1.2.3", "10.4.5.6", protoTCP, make([]byte, 19)),
		"empty":          ip4("10.1.2.3", "10.4.5.6", protoTCP, nil),
	} {
		want := bytes.Clone(pkt)
		if completeChecksum(typeIPv4, pkt); !bytes.Equal(pkt, want) {
			t.Errorf("%s: changed", name)
		}
	}
	frag := ip4("10.1.2.3", "10.4.5.6", protoUDP, make([]byte, 16))
	binary.BigEndian.PutUint16(frag[26:], checksum.Checksum(frag[12:20], protoUDP+16))
	frag[7] = 1 // a later fragment: no UDP header in it
	want := bytes.Clone(frag)
	if completeChecksum(typeIPv4, frag); !bytes.Equal(frag, want) {
		t.Error("fragment: changed")
	}
}
