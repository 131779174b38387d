package stun

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// askTries is how often Ask sends (Rc of RFC 8489 section 6.2.1); it gives up 16
// rto after the last, 39.5 s in all.
const askTries = 7

// ErrNoAnswer says that a server did not answer.
var ErrNoAnswer = errors.New("stun: no answer")

// Ask asks server for the address that it sees of conn, and how long that took.
// It repeats the request until an answer comes, ctx ends or 39.5 s have passed,
// which is [ErrNoAnswer]. Until it returns conn is its own: it discards whatever
// else comes in, and leaves the socket without a deadline.
func Ask(ctx context.Context, conn net.PacketConn, server netip.AddrPort) (netip.AddrPort, time.Duration, error) {
	mapped, rtt, err := ask1(ctx, conn, unmap(server))
	if err != nil {
		return netip.AddrPort{}, 0, fmt.Errorf("stun: ask %v: %w", server, err)
	}
	return mapped, rtt, nil
}

func ask1(ctx context.Context, conn net.PacketConn, server netip.AddrPort) (netip.AddrPort, time.Duration, error) {
	var tx TxID
	if _, err := rand.Read(tx[:]); err != nil {
		return netip.AddrPort{}, 0, err
	}
	req, to := AppendRequest(nil, tx, RequestOptions{}), net.UDPAddrFromAddrPort(server)
	defer unblock(ctx, conn)()
	start := time.Now()
	for try := range askTries {
		wait := rto << try
		if try == askTries-1 {
			wait = 16 * rto
		}
		if _, err := conn.WriteTo(req, to); err != nil {
			return netip.AddrPort{}, 0, err
		}
		m, err := await(ctx, conn, server, tx, time.Now().Add(wait))
		switch {
		case err == nil && m.Kind == KindResponse:
			return m.Mapped, time.Since(start), nil
		case err == nil:
			return netip.AddrPort{}, 0, fmt.Errorf("refused with code %d", m.Code)
		case ctx.Err() != nil:
			return netip.AddrPort{}, 0, ctx.Err()
		case !isTimeout(err):
			return netip.AddrPort{}, 0, err
		}
	}
	return netip.AddrPort{}, 0, ErrNoAnswer
}

// unblock makes reads of conn fail when ctx ends. The returned func undoes it and
// takes the deadline away.
func unblock(ctx context.Context, conn net.PacketConn) func() {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		_ = conn.SetReadDeadline(time.Unix(1, 0)) // a closed socket does not block either
	})
	return func() {
		if !stop() {
			<-ended
		}
		_ = conn.SetReadDeadline(time.Time{})
	}
}

// await reads until the answer to tx comes from server.
func await(ctx context.Context, conn net.PacketConn, server netip.AddrPort, tx TxID, until time.Time) (Message, error) {
	if err := conn.SetReadDeadline(until); err != nil {
		return Message{}, err
	}
	if err := ctx.Err(); err != nil { // ended before the deadline above was set
		return Message{}, err
	}
	buf := make([]byte, maxPacket)
	for {
		m, from, err := read(conn, buf)
		if err != nil {
			return Message{}, err
		}
		if from == server && m.Tx == tx && (m.Kind == KindResponse || m.Kind == KindRefusal) {
			return m, nil
		}
	}
}

// maxPacket is more than a STUN server sends; what is longer is cut off, and does
// not parse.
const maxPacket = 2048

// read returns the next STUN message. Since conn is of a client alone, whatever is
// none is of no interest.
func read(conn net.PacketConn, buf []byte) (Message, netip.AddrPort, error) {
	for {
		n, a, err := conn.ReadFrom(buf)
		if err != nil {
			return Message{}, netip.AddrPort{}, err
		}
		u, ok := a.(*net.UDPAddr)
		if !ok {
			return Message{}, netip.AddrPort{}, fmt.Errorf("socket of type %T", conn)
		}
		if m, err := Parse(buf[:n]); err == nil {
			return m, unmap(u.AddrPort()), nil
		}
	}
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

// Discover runs a [Discovery] on sockets of its own until it is done or ctx ends,
// and returns what is known then: the error is that of ctx or of a socket. other
// may be nil; what needs it stays unknown. Each socket may be of one IP version or
// of both; servers that it cannot reach count as silent.
func Discover(ctx context.Context, cfg Config, conn, other net.PacketConn) (Report, error) {
	cfg.NoOther = cfg.NoOther || other == nil
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	in := make(chan ResponseIn)
	var readers sync.WaitGroup
	for i, c := range []net.PacketConn{conn, other} {
		if c != nil {
			readers.Go(func() { receive(ctx, cancel, c, i == 1, in) })
		}
	}
	d := NewDiscovery(cfg)
	drive(ctx, d, conn, other, in)
	err := context.Cause(ctx)
	cancel(nil)
	readers.Wait()
	if err != nil {
		err = fmt.Errorf("stun: discovery: %w", err)
	}
	return d.Report(), err
}

// receive hands what comes in on conn to in until ctx ends.
func receive(ctx context.Context, cancel context.CancelCauseFunc, conn net.PacketConn, onOther bool, in chan<- ResponseIn) {
	defer unblock(ctx, conn)()
	buf := make([]byte, maxPacket)
	for {
		m, from, err := read(conn, buf)
		if err != nil {
			cancel(err) // no effect when ctx has ended
			return
		}
		m.raw, m.mac = nil, 0 // the buffer is used again
		select {
		case in <- ResponseIn{Message: m, From: from, OnOther: onOther}:
		case <-ctx.Done():
			return
		}
	}
}

func drive(ctx context.Context, d *Discovery, conn, other net.PacketConn, in <-chan ResponseIn) {
	var ev Event = Tick{}
	for {
		for _, a := range d.Step(time.Now(), ev) {
			s := a.(Send)
			c := conn
			if s.FromOther {
				c = other
			}
			// An address that cannot be reached is one that does not answer.
			_, _ = c.WriteTo(s.Data, net.UDPAddrFromAddrPort(s.To))
		}
		if d.Done() {
			return
		}
		timer := time.NewTimer(time.Until(d.Deadline()))
		select {
		case r := <-in:
			ev = r
		case <-timer.C:
			ev = Tick{}
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}
