package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// Datagrams in a stream of the local API are frames: a byte for the kind, the length
// in two bytes, and the payload.
const (
	frameData    = 0
	frameRefused = 1 // the other end has no socket; the stream ends
	// Other ICMP errors, likewise: the host is out of reach, or it is not allowed.
	frameUnreachable = 2
	frameForbidden   = 3
	frameHead        = 3
	maxDatagram      = 65535
)

// frameErrors are the kinds of frames that end a stream with an error.
var frameErrors = map[byte]syscall.Errno{
	frameRefused: syscall.ECONNREFUSED, frameUnreachable: syscall.EHOSTUNREACH, frameForbidden: syscall.EACCES,
}

// appendFrame appends the frame of a datagram of at most 65535 bytes.
func appendFrame(b []byte, kind byte, payload []byte) []byte {
	b = append(b, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	return append(b, payload...)
}

// readFrame reads the next datagram into b, which has room for the largest.
func readFrame(r io.Reader, b []byte) (int, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint16(head[1:]))
	if err := frameError(head[0]); err != nil {
		return 0, err
	}
	if n > len(b) {
		return 0, io.ErrShortBuffer
	}
	if _, err := io.ReadFull(r, b[:n]); err != nil {
		return 0, fmt.Errorf("a frame is cut off: %w", err)
	}
	return n, nil
}

// frameError is what a kind of frame says; nil: it has data.
func frameError(kind byte) error {
	if kind == frameData {
		return nil
	}
	if errno, ok := frameErrors[kind]; ok {
		return errno
	}
	return fmt.Errorf("frame of kind %d", kind)
}

// datagramConn is a stream of the local API that carries datagrams. A read that its
// deadline ended in the middle of a frame goes on with the next one.
type datagramConn struct {
	*streamConn
	wmu  sync.Mutex
	out  []byte
	in   []byte // of a frame that is not whole yet
	room []byte
}

func newDatagramConn(s *streamConn) *datagramConn { return &datagramConn{streamConn: s} }

// Read reads one datagram.
func (d *datagramConn) Read(b []byte) (int, error) {
	if d.room == nil {
		d.room = make([]byte, frameHead+maxDatagram)
	}
	for {
		want := frameHead
		if len(d.in) >= frameHead {
			want += int(binary.BigEndian.Uint16(d.in[1:]))
		}
		if len(d.in) >= frameHead && len(d.in) == want {
			kind, payload := d.in[0], d.in[frameHead:]
			d.in = d.in[:0]
			if err := frameError(kind); err != nil {
				return 0, err
			}
			return copy(b, payload), nil
		}
		n, err := d.streamConn.Read(d.room[len(d.in):want])
		d.in = d.room[:len(d.in)+n]
		if err != nil && len(d.in) < want {
			return 0, err
		}
	}
}

// Write writes one datagram.
func (d *datagramConn) Write(b []byte) (int, error) {
	if len(b) > maxDatagram {
		return 0, syscall.EMSGSIZE
	}
	d.wmu.Lock()
	defer d.wmu.Unlock()
	d.out = appendFrame(d.out[:0], frameData, b)
	if _, err := d.streamConn.Write(d.out); err != nil {
		return 0, err
	}
	return len(b), nil
}

// serveDatagrams carries datagrams between a stream and a socket of another domain
// until either ends, ctx does, or nothing was said for as long as they may be idle.
func serveDatagrams(ctx context.Context, c net.Conn, in *bufio.Reader, far net.Conn, idle time.Duration) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() {
		_ = c.Close()
		_ = far.Close()
	})
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		defer cancel()
		b := make([]byte, maxDatagram)
		for {
			n, err := readFrame(in, b)
			if err != nil {
				return
			}
			_ = far.SetReadDeadline(time.Now().Add(idle))
			if _, err := far.Write(b[:n]); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	})
	b := make([]byte, maxDatagram)
	var out []byte
	for {
		_ = far.SetReadDeadline(time.Now().Add(idle))
		n, err := far.Read(b)
		if err != nil {
			for kind, errno := range frameErrors {
				if errors.Is(err, errno) {
					_ = c.SetWriteDeadline(time.Now().Add(time.Second))
					_, _ = c.Write(appendFrame(nil, kind, nil))
				}
			}
			return
		}
		out = appendFrame(out[:0], frameData, b[:n])
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}
