//go:build linux

package main

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A stream begins with a ClientHello, by which a front finds the node, and the
// server throws that away: TLS itself is not what is measured. The next byte says
// what follows.
const (
	streamSink  = 's' // the server reads to the end, and answers with one byte
	streamFlood = 'f' // the server sends until the client closes
	streamEcho  = 'e' // every byte comes back
)

// idleStreams are held open to see what each of them costs.
const idleStreams = 1000

// serveStreams serves streams at an address until the process is killed.
func serveStreams(addr string) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = c.Close() }()
			_ = serveStream(c) // the client sees it
		}()
	}
}

func serveStream(c net.Conn) error {
	var head [5]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return err
	}
	rest := make([]byte, int(binary.BigEndian.Uint16(head[3:]))+1)
	if _, err := io.ReadFull(c, rest); err != nil {
		return err
	}
	switch rest[len(rest)-1] {
	case streamSink:
		block := make([]byte, 256<<10)
		for {
			if _, err := c.Read(block); errors.Is(err, io.EOF) {
				_, err = c.Write([]byte{1})
				return err
			} else if err != nil {
				return err
			}
		}
	case streamFlood:
		block := make([]byte, 256<<10)
		for {
			if _, err := c.Write(block); err != nil {
				return err
			}
		}
	default:
		_, err := io.Copy(c, struct{ io.Reader }{c})
		return err
	}
}

// relayStreams is a plain TCP proxy: what comes to listen goes to to, from the
// address from when that is not empty ("-").
func relayStreams(listen, to, from string) error {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	var d net.Dialer
	if from != "-" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = c.Close() }()
			b, err := d.Dial("tcp", to)
			if err != nil {
				return
			}
			defer func() { _ = b.Close() }()
			var wg sync.WaitGroup
			wg.Go(func() { relayOneWay(b.(*net.TCPConn), c.(*net.TCPConn)) })
			wg.Go(func() { relayOneWay(c.(*net.TCPConn), b.(*net.TCPConn)) })
			wg.Wait()
		}()
	}
}

func relayOneWay(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil { // by splice
		_ = to.Close()
		return
	}
	_ = to.CloseWrite()
}

// clientHello is what a TLS client that wants name says first.
func clientHello(name string) ([]byte, error) {
	a, b := net.Pipe()
	defer func() { _ = b.Close() }()
	go func() { _ = tls.Client(a, &tls.Config{ServerName: name}).Handshake() }() //nolint:gosec // nothing is trusted
	var head [5]byte
	if _, err := io.ReadFull(b, head[:]); err != nil {
		return nil, err
	}
	rest := make([]byte, binary.BigEndian.Uint16(head[3:]))
	_, err := io.ReadFull(b, rest)
	return append(head[:], rest...), err
}

// client opens streams.
type client struct {
	addr  string
	hello []byte
}

func (c *client) open(kind byte) (*net.TCPConn, error) {
	conn, err := net.Dial("tcp", c.addr)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(append(bytes.Clone(c.hello), kind)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn.(*net.TCPConn), nil
}

// useStreams measures streams to a name at an address, each thing for a while, and
// prints: bit/s there and back, nanoseconds of a round trip on an open stream and
// of one with a new stream, streams a second. Then it holds idle streams, which have
// carried a byte, until standard input ends.
func useStreams(addr, name, seconds string) error {
	d, err := time.ParseDuration(seconds)
	if err != nil {
		return err
	}
	hello, err := clientHello(name)
	if err != nil {
		return err
	}
	c := &client{addr, hello}
	var figures []float64
	for _, f := range []func(time.Duration) (float64, error){c.up, c.down, c.roundTrip, c.newStream, c.rate} {
		v, err := f(d)
		if err != nil {
			return err
		}
		figures = append(figures, v)
	}
	fmt.Println(figures[0], figures[1], figures[2], figures[3], figures[4])
	_, _ = fmt.Fscanln(os.Stdin) // memory is looked at before
	for range idleStreams {
		conn, err := c.open(streamEcho)
		if err == nil {
			err = c.echo(conn)
		}
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
	}
	fmt.Println("idle")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// up sends for d and waits until all has arrived.
func (c *client) up(d time.Duration) (float64, error) {
	conn, err := c.open(streamSink)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	block, sent, start := make([]byte, 256<<10), 0, time.Now()
	for time.Since(start) < d {
		n, err := conn.Write(block)
		if err != nil {
			return 0, err
		}
		sent += n
	}
	if err := conn.CloseWrite(); err != nil {
		return 0, err
	}
	if _, err := conn.Read(block[:1]); err != nil {
		return 0, err
	}
	return 8 * float64(sent) / time.Since(start).Seconds(), nil
}

// down reads for d.
func (c *client) down(d time.Duration) (float64, error) {
	conn, err := c.open(streamFlood)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	block, got, start := make([]byte, 256<<10), 0, time.Now()
	for time.Since(start) < d {
		n, err := conn.Read(block)
		if err != nil {
			return 0, err
		}
		got += n
	}
	return 8 * float64(got) / time.Since(start).Seconds(), nil
}

func (c *client) echo(conn net.Conn) error {
	var b [1]byte
	if _, err := conn.Write(b[:]); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, b[:])
	return err
}

// roundTrip is the median on one stream.
func (c *client) roundTrip(d time.Duration) (float64, error) {
	conn, err := c.open(streamEcho)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	return medianOf(d/2, func() error { return c.echo(conn) })
}

// newStream is the median from the first packet of a stream to its first answer.
func (c *client) newStream(d time.Duration) (float64, error) {
	return medianOf(d/2, func() error {
		conn, err := c.open(streamEcho)
		if err != nil {
			return err
		}
		return errors.Join(c.echo(conn), conn.Close())
	})
}

func medianOf(d time.Duration, f func() error) (float64, error) {
	var took []time.Duration
	for start := time.Now(); time.Since(start) < d; {
		one := time.Now()
		if err := f(); err != nil {
			return 0, err
		}
		took = append(took, time.Since(one))
	}
	slices.SortFunc(took, cmp.Compare)
	return float64(took[len(took)/2]), nil
}

// rate is how many streams a second eight clients open, use and close.
func (c *client) rate(d time.Duration) (float64, error) {
	var n atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	start := time.Now()
	for range 8 {
		wg.Go(func() {
			for time.Since(start) < d {
				conn, err := c.open(streamEcho)
				if err == nil {
					err = errors.Join(c.echo(conn), conn.Close())
				}
				if err != nil {
					errs <- err
					return
				}
				n.Add(1)
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return 0, err
	default:
		return float64(n.Load()) / time.Since(start).Seconds(), nil
	}
}
