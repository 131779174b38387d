package stream

import (
	"encoding/binary"
	"errors"
)

const (
	lengthSize = 2
	// MaxDatagram is the size in bytes of the largest datagram that a stream
	// carries, more than any path has: with its length it fills one TLS record.
	MaxDatagram = maxRecord - lengthSize
	// maxRecord is the plaintext of a TLS record (RFC 8446 section 5.1).
	maxRecord = 1 << 14

	minReadBuffer = 4 << 10
	maxReadBuffer = 2 * maxRecord
	// maxBatch bounds the datagrams that are handed over at once.
	maxBatch = 128
)

var errTooBig = errors.New("a frame is longer than any datagram")

// splitter cuts what a stream brings into datagrams. The zero value is ready. It
// is not safe for concurrent use.
type splitter struct {
	buf   []byte // as long as may be read into
	used  int    // bytes that were read and not handed over
	batch [][]byte
	empty uint64 // frames without a datagram, which mean nothing
}

// space returns where the next bytes belong; never empty after next returned
// without an error.
func (s *splitter) space() []byte {
	if s.buf == nil {
		s.buf = make([]byte, minReadBuffer)
		s.batch = make([][]byte, 0, maxBatch)
	}
	return s.buf[s.used:]
}

// next takes n bytes that were read into space and calls give with the datagrams
// that are complete, at most maxBatch at once; they are valid until give
// returns. A length above MaxDatagram ends the stream: what follows is unknown.
func (s *splitter) next(n int, give func([][]byte)) error {
	full := n == len(s.buf)-s.used
	s.used += n
	rest, need := s.buf[:s.used], 0
	for len(rest) >= lengthSize {
		size := int(binary.BigEndian.Uint16(rest))
		if size > MaxDatagram {
			s.flush(give)
			return errTooBig
		}
		if need = lengthSize + size; len(rest) < need {
			break
		}
		if size == 0 {
			s.empty++
		} else {
			s.batch = append(s.batch, rest[lengthSize:need])
		}
		rest, need = rest[need:], 0
		if len(s.batch) == maxBatch {
			s.flush(give)
		}
	}
	s.flush(give)
	s.keep(rest, full, need)
	return nil
}

func (s *splitter) flush(give func([][]byte)) {
	if len(s.batch) > 0 {
		give(s.batch)
		s.batch = s.batch[:0]
	}
}

// keep moves the rest of a frame to the front, into a larger buffer when the
// reader filled this one: an idle stream costs little memory, a busy one few
// reads.
func (s *splitter) keep(rest []byte, full bool, need int) {
	size := len(s.buf)
	for size < need {
		size *= 2
	}
	if full && size == len(s.buf) && size < maxReadBuffer {
		size *= 2
	}
	to := s.buf
	if size != len(s.buf) {
		to = make([]byte, size)
	}
	s.used = copy(to, rest)
	s.buf = to
}
