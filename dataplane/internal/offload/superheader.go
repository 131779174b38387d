package offload

import (
	"encoding/binary"

	"corax/dataplane"
)

// superHeader writes the virtio-net header and the packet headers of run r into
// its own memory and returns them. A super-packet takes two packets at least, so
// there is room for every one of a batch.
func (c *Coalescer) superHeader(batch []dataplane.Packet, r *run) []byte {
	at := c.headers * maxHeader
	c.headers++
	b := c.header[at : at+HeaderLen+r.hdr : at+maxHeader]
	Header{
		Flags:          FlagNeedsChecksum,
		GSOType:        r.gsoType(),
		HeaderLen:      uint16(r.hdr),
		GSOSize:        uint16(r.gso),
		ChecksumStart:  uint16(r.l4),
		ChecksumOffset: uint16(r.checksumOffset()),
	}.Put(b)
	p := b[HeaderLen:]
	copy(p, batch[r.head].Data)

	if r.v6 {
		binary.BigEndian.PutUint16(p[4:], uint16(r.size-ip6Len))
	} else {
		binary.BigEndian.PutUint16(p[2:], uint16(r.size))
		binary.BigEndian.PutUint16(p[10:], 0)
		binary.BigEndian.PutUint16(p[10:], ^fold(sum(p[:r.l4], 0)))
	}
	t := p[r.l4:]
	if r.proto == protoUDP {
		binary.BigEndian.PutUint16(t[4:], uint16(r.size-r.l4))
	} else {
		t[13] |= batch[r.tail].Data[r.l4+13] & tcpPSH
	}
	acc := add(r.pseudo(p), word(uint16(r.size-r.l4)))
	binary.BigEndian.PutUint16(t[r.checksumOffset():], fold(acc))
	return b
}
