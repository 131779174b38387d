//go:build linux

package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// ICMPError is an ICMP or ICMPv6 error message that a host received.
type ICMPError struct {
	From       netip.Addr // who sent it
	Type, Code int
	MTU        int // of "fragmentation needed" and "packet too big", in bytes
	// The packet it is about.
	Src, Dst netip.Addr
	Protocol int    // its transport protocol
	Payload  []byte // its first bytes after the IP header
}

// TooBig reports whether the message asks for smaller packets.
func (e *ICMPError) TooBig() bool {
	if e.From.Is4() {
		return e.Type == 3 && e.Code == 4
	}
	return e.Type == 2
}

func (e *ICMPError) Error() string {
	s := fmt.Sprintf("ICMP type %d code %d from %s about %s", e.Type, e.Code, e.From, e.Dst)
	if e.TooBig() {
		s += fmt.Sprintf(" (MTU %d)", e.MTU)
	}
	return s
}

// ICMPConn receives the ICMP messages of one family that reach a host.
type ICMPConn struct {
	conn *net.IPConn
	v6   bool
}

// ListenICMP opens a raw socket; messages that arrive from now on are kept for
// [ICMPConn.Next]. The caller closes it.
func (h *Host) ListenICMP(v6 bool) (*ICMPConn, error) {
	network, address := "ip4:icmp", "0.0.0.0"
	if v6 {
		network, address = "ip6:ipv6-icmp", "::"
	}
	var c net.PacketConn
	err := h.Do(func() (err error) {
		var lc net.ListenConfig
		c, err = lc.ListenPacket(context.Background(), network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("lab: on %s: %w", h.Name, err)
	}
	return &ICMPConn{conn: c.(*net.IPConn), v6: v6}, nil
}

// Close closes the socket.
func (c *ICMPConn) Close() error { return c.conn.Close() }

// Next returns the next ICMP error, skipping other messages. The context's
// deadline ends the wait.
func (c *ICMPConn) Next(ctx context.Context) (*ICMPError, error) {
	var found *ICMPError
	err := c.read(ctx, func(from netip.Addr, msg []byte) bool {
		e, ok := parseICMPError(from, msg)
		found = e
		return ok
	})
	return found, err
}

// read hands messages to use until that returns true.
func (c *ICMPConn) read(ctx context.Context, use func(from netip.Addr, msg []byte) bool) error {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer func() {
		stop()
		_ = c.conn.SetReadDeadline(time.Time{})
	}()
	buf := make([]byte, 65536)
	for {
		n, from, err := c.conn.ReadFromIP(buf)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		addr, ok := netip.AddrFromSlice(from.IP)
		if ok && use(addr.Unmap().WithZone(""), buf[:n]) {
			return nil
		}
	}
}

// parseICMPError parses an error message without its IP header; the family is
// that of from.
func parseICMPError(from netip.Addr, msg []byte) (*ICMPError, bool) {
	if len(msg) < 8 {
		return nil, false
	}
	e := &ICMPError{From: from, Type: int(msg[0]), Code: int(msg[1])}
	about := msg[8:]
	if from.Is4() {
		switch e.Type {
		case 3, 11, 12: // RFC 792, RFC 1191
		default:
			return nil, false
		}
		if e.TooBig() {
			e.MTU = int(binary.BigEndian.Uint16(msg[6:]))
		}
		if len(about) < 20 || about[0]>>4 != 4 {
			return nil, false
		}
		n := int(about[0]&15) * 4
		if n < 20 || len(about) < n {
			return nil, false
		}
		e.Src, e.Dst = netip.AddrFrom4([4]byte(about[12:])), netip.AddrFrom4([4]byte(about[16:]))
		e.Protocol, e.Payload = int(about[9]), append([]byte(nil), about[n:]...)
		return e, true
	}
	if e.Type >= 128 { // RFC 4443: errors are below
		return nil, false
	}
	if e.TooBig() {
		e.MTU = int(binary.BigEndian.Uint32(msg[4:]))
	}
	if len(about) < 40 || about[0]>>4 != 6 {
		return nil, false
	}
	e.Src, e.Dst = netip.AddrFrom16([16]byte(about[8:])), netip.AddrFrom16([16]byte(about[24:]))
	e.Protocol, e.Payload = int(about[6]), append([]byte(nil), about[40:]...)
	return e, true
}

// PingOptions vary a ping. The zero value is a small one.
type PingOptions struct {
	Size int        // of the whole IP packet in bytes; 0 means 84 (IPv6: 104)
	DF   bool       // don't fragment, and ignore the path MTU known so far
	From netip.Addr // source; zero means the kernel's choice
}

// Ping sends one echo request and waits for what comes of it until ctx ends. The
// error is an [*ICMPError] when one came back, and wraps unix.EMSGSIZE when
// the first link refused the packet.
func (h *Host) Ping(ctx context.Context, to netip.Addr, opt PingOptions) (rtt time.Duration, err error) {
	c, err := h.ListenICMP(to.Is6())
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	if err := SetDF(c.conn, opt.DF); err != nil {
		return 0, err
	}
	if opt.From.IsValid() {
		if err := bindTo(c.conn, opt.From); err != nil {
			return 0, fmt.Errorf("lab: ping from %s: %w", opt.From, err)
		}
	}
	id := uint16(time.Now().UnixNano()>>8) ^ uint16(unix.Gettid())
	start := time.Now()
	if err := c.sendEcho(to, id, opt.Size); err != nil {
		return 0, fmt.Errorf("lab: ping %s from %s: %w", to, h.Name, err)
	}
	var refused *ICMPError
	err = c.read(ctx, func(from netip.Addr, msg []byte) bool {
		if from == to && isEchoReply(to.Is6(), msg, id) {
			return true
		}
		e, ok := parseICMPError(from, msg)
		if ok && e.Dst == to && len(e.Payload) >= 6 && binary.BigEndian.Uint16(e.Payload[4:]) == id {
			refused = e
			return true
		}
		return false
	})
	switch {
	case refused != nil:
		return time.Since(start), refused
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return 0, fmt.Errorf("lab: ping %s from %s: no answer: %w", to, h.Name, err)
	case err != nil:
		return 0, fmt.Errorf("lab: ping %s from %s: %w", to, h.Name, err)
	}
	return time.Since(start), nil
}

// PingUntil pings once every 200 ms until an answer comes or ctx ends.
func (h *Host) PingUntil(ctx context.Context, to netip.Addr, opt PingOptions) (rtt time.Duration, err error) {
	err = poll(ctx, 200*time.Millisecond, func() error {
		once, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		var err error
		rtt, err = h.Ping(once, to, opt)
		return err
	})
	return rtt, err
}

func (c *ICMPConn) sendEcho(to netip.Addr, id uint16, size int) error {
	header, kind := 20, byte(8)
	if c.v6 {
		header, kind = 40, 128
	}
	if size == 0 {
		size = header + 64
	}
	msg := make([]byte, max(size-header, 8))
	msg[0] = kind
	binary.BigEndian.PutUint16(msg[4:], id)
	binary.BigEndian.PutUint16(msg[6:], 1)
	for i := range msg[8:] {
		msg[8+i] = byte(i)
	}
	if !c.v6 { // the kernel fills in that of ICMPv6
		binary.BigEndian.PutUint16(msg[2:], checksum(msg))
	}
	_, err := c.conn.WriteToIP(msg, &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()})
	return err
}

func isEchoReply(v6 bool, msg []byte, id uint16) bool {
	kind := byte(0)
	if v6 {
		kind = 129
	}
	return len(msg) >= 8 && msg[0] == kind && binary.BigEndian.Uint16(msg[4:]) == id
}

func bindTo(conn *net.IPConn, addr netip.Addr) error {
	rc, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = rc.Control(func(fd uintptr) {
		if addr.Is4() {
			serr = unix.Bind(int(fd), &unix.SockaddrInet4{Addr: addr.As4()})
		} else {
			serr = unix.Bind(int(fd), &unix.SockaddrInet6{Addr: addr.As16()})
		}
	})
	return errors.Join(err, serr)
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for len(b) >= 2 {
		sum += uint32(b[0])<<8 | uint32(b[1])
		b = b[2:]
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
