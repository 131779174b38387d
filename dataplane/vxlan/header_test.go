package vxlan

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"
)

func TestNodeAddresses(t *testing.T) {
	for _, tt := range []struct{ node, segment, mac string }{
		{"192.168.1.2", "240.168.1.2", "aa:0f:f0:a8:01:02"},
		{"10.0.255.0", "240.0.255.0", "aa:0f:f0:00:ff:00"},
		{"::ffff:10.1.2.3", "240.1.2.3", "aa:0f:f0:01:02:03"},
		{"fd00::12:3456", "240.18.52.86", "aa:0f:f0:12:34:56"},
		{"2001:db8::ff00:1", "240.0.0.1", "aa:0f:f0:00:00:01"},
	} {
		node := netip.MustParseAddr(tt.node)
		if got := SegmentAddr(node).String(); got != tt.segment {
			t.Errorf("SegmentAddr(%s) = %s, want %s", node, got, tt.segment)
		}
		if got := NodeMAC(node).String(); got != tt.mac {
			t.Errorf("NodeMAC(%s) = %s, want %s", node, got, tt.mac)
		}
	}
	if SegmentAddr(netip.Addr{}).IsValid() || NodeMAC(netip.Addr{}) != (MAC{}) {
		t.Error("the zero Addr has a place on the segment")
	}
	if got := SegmentPrefix(netip.MustParseAddr("10.1.2.3")).String(); got != "240.1.2.3/8" {
		t.Errorf("SegmentPrefix = %s", got)
	}
}

// TestHeaderBytes pins the bytes on the wire: RFC 7348 section 5, then an
// Ethernet header.
func TestHeaderBytes(t *testing.T) {
	h := makeHeader(0x0000c8, MAC{0xaa, 0x0f, 0xf0, 1, 2, 3}, MAC{0xaa, 0x0f, 0xf0, 4, 5, 6}, typeIPv4)
	want, _ := hex.DecodeString("080000000000c800" + "aa0ff0010203" + "aa0ff0040506" + "0800")
	if !bytes.Equal(h[:], want) {
		t.Fatalf("header %x, want %x", h, want)
	}
	var f frame
	d := f.parse(append(h[:], "payload"...), 200)
	if d != dropNone || f.dst != (MAC{0xaa, 0x0f, 0xf0, 1, 2, 3}) || f.src != (MAC{0xaa, 0x0f, 0xf0, 4, 5, 6}) ||
		f.etherType != typeIPv4 || string(f.payload) != "payload" || len(f.ethernet) != 14+7 {
		t.Fatalf("parsed %+v, %s", f, d)
	}
}

func TestFrame(t *testing.T) {
	good := makeHeader(200, MAC{2, 2}, MAC{4, 4}, typeIPv4)
	for _, tt := range []struct {
		name string
		edit func([]byte) []byte
		want drop
	}{
		{"good", func(b []byte) []byte { return b }, dropNone},
		{"reserved bits", func(b []byte) []byte { b[0], b[1], b[3], b[7] = 0xff, 0xff, 1, 0xff; return b }, dropNone},
		{"empty", func(b []byte) []byte { return nil }, dropShort},
		{"half an Ethernet header", func(b []byte) []byte { return b[:21] }, dropShort},
		{"no I flag", func(b []byte) []byte { b[0] = 0xf7; return b }, dropFlags},
		{"other VNI", func(b []byte) []byte { b[6]++; return b }, dropVNI},
		{"other VNI, high bits", func(b []byte) []byte { b[4]++; return b }, dropVNI},
		{"multicast source", func(b []byte) []byte { b[14] |= 1; return b }, dropMAC},
	} {
		h := good
		var f frame
		if got := f.parse(tt.edit(h[:]), 200); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestParseIP(t *testing.T) {
	v4 := ip4("10.0.0.1", "10.0.0.2", protoUDP, make([]byte, 8))
	v6 := ip6("fd00::1", "fd00::2", protoUDP, make([]byte, 8))
	for _, tt := range []struct {
		name string
		typ  uint16
		b    []byte
		want int // length; 0: refused
	}{
		{"v4", typeIPv4, v4, 28},
		{"v6", typeIPv6, v6, 48},
		{"v4 padded", typeIPv4, append(bytes.Clone(v4), make([]byte, 18)...), 28},
		{"v6 padded", typeIPv6, append(bytes.Clone(v6), make([]byte, 3)...), 48},
		{"v4 cut", typeIPv4, v4[:27], 0},
		{"v6 cut", typeIPv6, v6[:47], 0},
		{"v4 half a header", typeIPv4, v4[:19], 0},
		{"v6 half a header", typeIPv6, v6[:39], 0},
		{"v4 as v6", typeIPv6, append(bytes.Clone(v4), make([]byte, 40)...), 0},
		{"v6 as v4", typeIPv4, v6, 0},
		{"v4 header length below 20", typeIPv4, edited(v4, 0, 0x44), 0},
		{"v4 total below header", typeIPv4, edited(v4, 3, 19), 0},
		{"v4 options longer than the packet", typeIPv4, edited(v4, 0, 0x4f), 0},
		{"other ethertype", 0x8100, v4, 0},
	} {
		pkt, _, _, ok := parseIP(tt.typ, tt.b)
		if ok != (tt.want != 0) || len(pkt) != tt.want || cap(pkt) != tt.want {
			t.Errorf("%s: %d bytes of capacity %d, %t, want %d", tt.name, len(pkt), cap(pkt), ok, tt.want)
		}
	}
}

func edited(b []byte, at int, v byte) []byte {
	b = bytes.Clone(b)
	b[at] = v
	return b
}
