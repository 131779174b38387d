package vxlan

import (
	"corax/dataplane"
	"corax/dataplane/internal/offload"
)

const (
	// superOver is the size in bytes above which a TCP packet with an open
	// checksum is cut. What is not longer fits most paths as it is.
	superOver = dataplane.PathMTU
	// pieceMTU is the size of the pieces in bytes. Nothing says which size the
	// sender had in mind, and an ICMP error about a piece would tell it to do
	// what it does already, so they are small enough for every path: a relay
	// frame with WireGuard over IPv6 on a link of 1280 bytes, in steps of 16.
	pieceMTU = 1184
)

// cut takes a TCP packet that is longer than any path carries from v to the
// fabric in pieces. A kernel VXLAN device leaves it to the NIC to cut what TCP
// sends at once (TSO), up to 64 KiB; between containers or virtual machines of
// one computer no NIC comes, and one datagram holds it all. A packet that came
// in complete is not cut: its sender knows its size, and learns the right one by
// ICMP.
func (r *receiver) cut(v *vtep, etherType uint16, pkt []byte) drop {
	h := offload.Header{
		Flags: offload.FlagNeedsChecksum, GSOType: offload.GSOTCP4,
		ChecksumStart: ipv4Len, ChecksumOffset: 16,
	}
	if etherType == typeIPv4 {
		h.ChecksumStart = uint16(pkt[0]&15) * 4
	} else {
		h.GSOType, h.ChecksumStart = offload.GSOTCP6, ipv6Len
	}
	headers := h.ChecksumStart + uint16(pkt[h.ChecksumStart+12]>>4)*4
	h.GSOSize = pieceMTU - headers
	if err := r.split.Reset(h, pkt); err != nil {
		return dropMalformed
	}
	if r.pieces == nil {
		r.pieces = make([]byte, receiveBatch*pieceMTU)
	}
	for r.split.Size() > 0 {
		if r.n == len(r.out) {
			r.flush()
		}
		at := r.n * pieceMTU
		r.give(v, r.split.Next(r.pieces[at:at+pieceMTU]))
	}
	r.e.count.supers.Add(1)
	return dropNone
}

// super reports whether an IP packet whose checksum was open is to be cut.
func super(etherType uint16, pkt []byte) bool {
	if len(pkt) <= superOver {
		return false
	}
	if etherType == typeIPv4 {
		return pkt[9] == protoTCP
	}
	return pkt[6] == protoTCP
}
