//go:build linux

package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"
)

// Transfer is the result of Host.Transfer.
type Transfer struct {
	Bytes    int64         // each way
	Up, Down time.Duration // client to server, and back
}

// Transfer sends n random bytes over TCP to a [Server] and receives as many from
// it; both directions are checked with SHA-256.
func (h *Host) Transfer(ctx context.Context, to netip.AddrPort, n int64) (Transfer, error) {
	t := Transfer{Bytes: n}
	c, err := h.DialTCP(ctx, to)
	if err != nil {
		return t, err
	}
	if t, err = TransferOver(ctx, c, n); err != nil {
		return t, fmt.Errorf("lab: transfer from %s to %s: %w", h.Name, to, err)
	}
	return t, nil
}

// TransferOver is Host.Transfer over a connection, which it closes.
func TransferOver(ctx context.Context, c net.Conn, n int64) (Transfer, error) {
	t := Transfer{Bytes: n}
	defer func() { _ = c.Close() }()
	defer deadline(ctx, c)()
	return t, contextual(ctx, t.run(c, n))
}

func (t *Transfer) run(c net.Conn, n int64) error {
	start := time.Now()
	head := binary.BigEndian.AppendUint64([]byte{askTransfer}, uint64(n))
	if _, err := c.Write(head); err != nil {
		return err
	}
	ours, err := sendRandom(c, n)
	if err != nil {
		return err
	}
	var theirs [sha256.Size]byte
	if _, err := io.ReadFull(c, theirs[:]); err != nil {
		return err
	}
	t.Up = time.Since(start)
	if !bytes.Equal(theirs[:], ours) {
		return errors.New("the server received other bytes than were sent")
	}
	start = time.Now()
	sum := sha256.New()
	if _, err := io.CopyN(sum, c, n); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, theirs[:]); err != nil {
		return err
	}
	t.Down = time.Since(start)
	if !bytes.Equal(theirs[:], sum.Sum(nil)) {
		return errors.New("received other bytes than the server sent")
	}
	return nil
}

// WhoAmI asks the [Server] at to which source address it sees; network is "tcp"
// or "udp".
func (h *Host) WhoAmI(ctx context.Context, network string, to netip.AddrPort) (netip.Addr, error) {
	c, err := h.Dial(ctx, network, to.String())
	if err != nil {
		return netip.Addr{}, err
	}
	defer func() { _ = c.Close() }()
	defer deadline(ctx, c)()
	answer := make([]byte, 64)
	n := 0
	if network == "udp" {
		n, err = askUDP(ctx, c, []byte(udpName), answer)
	} else if _, err = c.Write([]byte{askName}); err == nil {
		n, err = io.ReadFull(c, answer)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = nil
		}
	}
	if err != nil {
		return netip.Addr{}, fmt.Errorf("lab: %s from %s to %s: %w", network, h.Name, to, contextual(ctx, err))
	}
	return netip.ParseAddr(string(answer[:n]))
}

// EchoTCP sends size bytes to a [Server] and waits for them to come back.
func (h *Host) EchoTCP(ctx context.Context, to netip.AddrPort, size int) (rtt time.Duration, err error) {
	c, err := h.DialTCP(ctx, to)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	defer deadline(ctx, c)()
	msg := randomBytes(size)
	answer := make([]byte, size)
	start := time.Now()
	if _, err = c.Write(append([]byte{askEcho}, msg...)); err == nil {
		_, err = io.ReadFull(c, answer)
	}
	if err == nil && !bytes.Equal(msg, answer) {
		err = errors.New("other bytes came back")
	}
	if err != nil {
		return 0, fmt.Errorf("lab: TCP echo from %s to %s: %w", h.Name, to, contextual(ctx, err))
	}
	return time.Since(start), nil
}

// EchoUDP sends a datagram with size bytes of payload to a [Server] until it
// comes back, once a second.
func (h *Host) EchoUDP(ctx context.Context, to netip.AddrPort, size int) (rtt time.Duration, err error) {
	c, err := h.DialUDP(to)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	msg := randomBytes(size)
	answer := make([]byte, 65536)
	start := time.Now()
	n, err := askUDP(ctx, c, msg, answer)
	if err == nil && !bytes.Equal(msg, answer[:n]) {
		err = errors.New("other bytes came back")
	}
	if err != nil {
		return 0, fmt.Errorf("lab: UDP echo from %s to %s: %w", h.Name, to, contextual(ctx, err))
	}
	return time.Since(start), nil
}

// askUDP sends msg once a second until an answer comes or ctx ends.
func askUDP(ctx context.Context, c net.Conn, msg, answer []byte) (int, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		if _, err := c.Write(msg); err != nil && ctx.Err() != nil {
			return 0, err
		}
		if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return 0, err
		}
		if ctx.Err() != nil { // the line above may have undone the deadline of stop
			return 0, ctx.Err()
		}
		n, err := c.Read(answer)
		if err == nil {
			return n, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			// An ICMP error about the datagram: the answer may still come
			// later, on another path.
			if werr := wait(ctx, 200*time.Millisecond); werr != nil {
				return 0, fmt.Errorf("%w; last: %w", werr, err)
			}
		}
	}
}

// deadline makes c's calls fail when ctx ends; the result undoes that.
func deadline(ctx context.Context, c net.Conn) func() bool {
	return context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
}

// contextual prefers the context's reason over the timeout that it caused.
func contextual(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return context.Cause(ctx)
	}
	return err
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}
