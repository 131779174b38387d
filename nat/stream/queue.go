package stream

import (
	"encoding/binary"
	"time"
)

const (
	// Bounds of what waits for the network in one stream.
	maxQueued     = 64
	maxQueueBytes = 128 << 10
	maxAge        = 250 * time.Millisecond

	stampSize  = 8
	headerSize = lengthSize + stampSize
)

// A store is the memory of a stream that has something to send: the ring in
// which datagrams wait, and the record that is on its way.
type store struct {
	ring   [maxQueueBytes]byte
	record [maxRecord]byte
}

// queue is a ring of datagrams, each with its length and when it came. It drops
// the oldest for the newest. The caller has the lock, and sets store before the
// first push.
type queue struct {
	store *store
	head  int // of the oldest datagram's header
	used  int // bytes
	count int // datagrams
}

// push appends a datagram of 1 to MaxDatagram bytes, and returns how many old
// ones it dropped for it.
func (q *queue) push(now time.Duration, datagram []byte) (dropped int) {
	for q.count == maxQueued || q.used+headerSize+len(datagram) > maxQueueBytes {
		size, _ := q.oldest()
		q.remove(size)
		dropped++
	}
	var header [headerSize]byte
	binary.BigEndian.PutUint16(header[:], uint16(len(datagram)))
	binary.BigEndian.PutUint64(header[lengthSize:], uint64(now))
	q.write(q.used, header[:])
	q.write(q.used+headerSize, datagram)
	q.used += headerSize + len(datagram)
	q.count++
	return dropped
}

// take moves as many datagrams as fit one record to it, framed, and drops those
// that came before since. The record is valid until the next take; it is empty
// when the queue is.
func (q *queue) take(since time.Duration) (record []byte, taken, dropped int) {
	if q.count == 0 {
		return nil, 0, 0
	}
	out := q.store.record[:]
	n := 0
	for q.count > 0 {
		size, at := q.oldest()
		if at < since {
			q.remove(size)
			dropped++
			continue
		}
		if n+lengthSize+size > len(out) {
			break
		}
		binary.BigEndian.PutUint16(out[n:], uint16(size))
		q.read(headerSize, out[n+lengthSize:][:size])
		n += lengthSize + size
		q.remove(size)
		taken++
	}
	return out[:n], taken, dropped
}

// oldest returns the size of the oldest datagram and when it came.
func (q *queue) oldest() (int, time.Duration) {
	var header [headerSize]byte
	q.read(0, header[:])
	return int(binary.BigEndian.Uint16(header[:])), time.Duration(binary.BigEndian.Uint64(header[lengthSize:]))
}

func (q *queue) remove(size int) {
	q.head = (q.head + headerSize + size) % maxQueueBytes
	q.used -= headerSize + size
	q.count--
}

// write puts b at offset bytes behind the head, around the end of the ring.
func (q *queue) write(offset int, b []byte) {
	at := (q.head + offset) % maxQueueBytes
	n := copy(q.store.ring[at:], b)
	copy(q.store.ring[:], b[n:])
}

func (q *queue) read(offset int, b []byte) {
	at := (q.head + offset) % maxQueueBytes
	n := copy(b, q.store.ring[at:])
	copy(b[n:], q.store.ring[:])
}
