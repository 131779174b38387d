package offload

import (
	"encoding/binary"
	"errors"
)

// HeaderLen is the length in bytes of the virtio-net header in front of every
// packet that is read from or written to the TUN.
const HeaderLen = 10

// FlagNeedsChecksum in [Header.Flags] says that the checksum field holds only
// the sum of the pseudo-header: VIRTIO_NET_HDR_F_NEEDS_CSUM.
const FlagNeedsChecksum = 1

// Values of [Header.GSOType], VIRTIO_NET_HDR_GSO_*. GSOECN is a bit that may be
// set beside GSOTCP4 and GSOTCP6: the first packet carries CWR.
const (
	GSONone = 0
	GSOTCP4 = 1
	GSOTCP6 = 4
	GSOUDP  = 5 // UDP_L4: one datagram per segment, not fragments
	GSOECN  = 0x80
)

// Header is a virtio-net header. The zero value is that of a plain packet with
// complete checksums.
type Header struct {
	Flags   uint8
	GSOType uint8
	// HeaderLen is a hint: the length of IP and transport header together.
	HeaderLen uint16
	// GSOSize is the payload of each packet but the last, in bytes.
	GSOSize uint16
	// ChecksumStart is the offset of the transport header in the packet.
	ChecksumStart uint16
	// ChecksumOffset is the offset of the checksum in the transport header.
	ChecksumOffset uint16
}

var errShortHeader = errors.New("offload: short virtio-net header")

// ParseHeader reads the header at the start of b.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderLen {
		return Header{}, errShortHeader
	}
	return Header{
		Flags:          b[0],
		GSOType:        b[1],
		HeaderLen:      binary.NativeEndian.Uint16(b[2:]),
		GSOSize:        binary.NativeEndian.Uint16(b[4:]),
		ChecksumStart:  binary.NativeEndian.Uint16(b[6:]),
		ChecksumOffset: binary.NativeEndian.Uint16(b[8:]),
	}, nil
}

// Put writes the header into the first HeaderLen bytes of b.
func (h Header) Put(b []byte) {
	_ = b[HeaderLen-1]
	b[0] = h.Flags
	b[1] = h.GSOType
	binary.NativeEndian.PutUint16(b[2:], h.HeaderLen)
	binary.NativeEndian.PutUint16(b[4:], h.GSOSize)
	binary.NativeEndian.PutUint16(b[6:], h.ChecksumStart)
	binary.NativeEndian.PutUint16(b[8:], h.ChecksumOffset)
}

// Super reports whether the packet behind the header is to be cut by a
// [Splitter].
func (h Header) Super() bool { return h.GSOType != GSONone }
