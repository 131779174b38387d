package fabric

import (
	"encoding/binary"
)

const (
	ipOptEnd    = 0
	ipOptNop    = 1
	ipOptCopied = 0x80 // RFC 791: the option is in every fragment
)

// fragment sends an IPv4 packet as fragments that fit limit bytes. The packet
// may be a fragment itself. The first one stays where it is; the others are
// built in the scratch's arena.
func (f *Fabric) fragment(s *scratch, h *header, e *entry, limit int) {
	var rest [60]byte
	restLen := restHeader(&rest, h.b[:h.hlen])
	frag := h.frag4()
	payload := h.b[h.hlen:]

	n := (limit - h.hlen) &^ 7
	setFragment(h.b[:h.hlen], h.hlen+n, frag|flagMF)
	s.emit(e.out, h.b[:h.hlen+n:h.hlen+n], e.vtep)
	f.counters.add(fragmentedPackets, 1)
	made := 1
	for done := n; done < len(payload); done += n {
		n = (limit - restLen) &^ 7
		flags := frag | flagMF
		if n >= len(payload)-done {
			n = len(payload) - done
			flags = frag // the last piece has MF only if the whole had it
		}
		b := f.take(s, restLen+n)
		copy(b, rest[:restLen])
		copy(b[restLen:], payload[done:done+n])
		setFragment(b[:restLen], restLen+n, flags+uint16(done/8))
		s.emit(e.out, b, e.vtep)
		made++
	}
	f.counters.add(fragmentsMade, made)
}

// restHeader writes the header of the fragments after the first: that of the
// packet, with only those options that are to be copied. It returns its length.
func restHeader(to *[60]byte, header []byte) int {
	n := copy(to[:], header[:header4Len])
	opts := header[header4Len:]
	for len(opts) > 0 && opts[0] != ipOptEnd {
		size := 1
		if opts[0] != ipOptNop {
			if len(opts) < 2 || opts[1] < 2 || int(opts[1]) > len(opts) {
				break
			}
			size = int(opts[1])
		}
		if opts[0]&ipOptCopied != 0 {
			n += copy(to[n:], opts[:size])
		}
		opts = opts[size:]
	}
	for n%4 != 0 {
		to[n] = ipOptEnd
		n++
	}
	to[0] = 0x40 | byte(n/4)
	return n
}

// setFragment writes total length, flags with offset, and checksum.
func setFragment(header []byte, total int, frag uint16) {
	binary.BigEndian.PutUint16(header[2:], uint16(total))
	binary.BigEndian.PutUint16(header[6:], frag)
	setChecksum4(header)
}

func setChecksum4(header []byte) {
	header[10], header[11] = 0, 0
	binary.BigEndian.PutUint16(header[10:], ^fold(sum(0, header)))
}
