package netstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Keepalives find a silent end that is gone within 33 seconds.
const (
	keepaliveIdle     = 15 * time.Second
	keepaliveInterval = 6 * time.Second
	keepaliveCount    = 3
)

// stream is gonet's connection, with what [net.TCPConn] has and that has not, and a
// Write of its own.
type stream struct {
	*gonet.TCPConn
	clock tcpip.Clock // of the stack
	wq    *waiter.Queue
	ep    tcpip.Endpoint

	writeBy deadline
	writing sync.Mutex
	payload bytes.Reader          // what is being written
	held    []byte                // taken by Hold, and not read yet
	heldErr atomic.Pointer[error] // what Hold was told after that
}

var _ net.Conn = (*stream)(nil)

func newStream(clock tcpip.Clock, wq *waiter.Queue, ep tcpip.Endpoint) *stream {
	idle, interval := tcpip.KeepaliveIdleOption(keepaliveIdle), tcpip.KeepaliveIntervalOption(keepaliveInterval)
	// They fail for nothing that is a TCP endpoint.
	_ = ep.SetSockOpt(&idle)
	_ = ep.SetSockOpt(&interval)
	_ = ep.SetSockOptInt(tcpip.KeepaliveCountOption, keepaliveCount)
	ep.SocketOptions().SetKeepAlive(true)
	return &stream{TCPConn: gonet.NewTCPConn(wq, ep), clock: clock, wq: wq, ep: ep}
}

// SetLinger with zero makes Close send a reset; with less than zero, what is not
// sent yet is sent, as without SetLinger. More than that is not supported.
func (c *stream) SetLinger(sec int) error {
	if sec > 0 {
		return fmt.Errorf("netstack: set linger: %w", errors.ErrUnsupported)
	}
	c.ep.SocketOptions().SetLinger(tcpip.LingerOption{Enabled: sec == 0})
	return nil
}

// Read implements [net.Conn]. A deadline's error is [os.ErrDeadlineExceeded].
func (c *stream) Read(b []byte) (int, error) {
	if len(c.held) > 0 {
		return c.readHeld(b), nil
	}
	if err := c.heldErr.Load(); err != nil {
		return 0, c.failed("read", *err)
	}
	n, err := c.TCPConn.Read(b)
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Err != nil && e.Timeout() {
		e.Err = os.ErrDeadlineExceeded
	}
	return n, err
}

// Write implements [net.Conn], as Read does. That of gonet leaves the endpoint with
// a reader of b, which so is kept as long as the connection: here the reader is
// emptied. As with the kernel the first error says how the other end has gone: EPIPE
// when it had said all and closed, ECONNRESET when it broke off.
func (c *stream) Write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	defer c.payload.Reset(nil)
	var ready chan struct{}
	for done := 0; ; {
		over := c.writeBy.wait()
		select {
		case <-over:
			return done, c.failed("write", os.ErrDeadlineExceeded)
		default:
		}
		if done == len(b) {
			return done, nil
		}
		c.payload.Reset(b[done:])
		n, err := c.ep.Write(&c.payload, tcpip.WriteOptions{})
		done += int(n)
		if err == nil {
			continue
		}
		if _, full := err.(*tcpip.ErrWouldBlock); !full {
			if held := c.heldErr.Load(); held != nil {
				return done, c.failed("write", *held)
			}
			return done, c.failed("write", errnoOf(err))
		}
		if ready == nil {
			var entry waiter.Entry
			entry, ready = waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
			c.wq.EventRegister(&entry)
			defer c.wq.EventUnregister(&entry)
			continue // there may be room since
		}
		select {
		case <-ready:
		case <-over:
		}
	}
}

func (c *stream) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// CloseWrite ends what is written.
func (c *stream) CloseWrite() error {
	if err := c.ep.Shutdown(tcpip.ShutdownWrite); err != nil {
		return c.failed("close", errnoOf(err))
	}
	return nil
}

// HasAll reports, after CloseWrite, whether the other end has acknowledged all of it, or
// is gone.
func (c *stream) HasAll() bool {
	switch tcp.EndpointState(c.ep.State()) {
	case tcp.StateFinWait2, tcp.StateTimeWait, tcp.StateClose, tcp.StateError:
		return true
	}
	return false
}

// SetDeadline implements [net.Conn].
func (c *stream) SetDeadline(t time.Time) error {
	c.writeBy.set(t)
	return c.SetReadDeadline(t)
}

// SetWriteDeadline implements [net.Conn].
func (c *stream) SetWriteDeadline(t time.Time) error {
	c.writeBy.set(t)
	return nil
}

// DialTCP opens a connection: to an IPv6 address from the overlay address, to an
// IPv4 address of the segment from the segment address. The connection has
// CloseWrite and SetLinger, and notices within 45 seconds that its other end is
// gone.
func (s *Stack) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if !to.IsValid() {
		return nil, fmt.Errorf("netstack: dial TCP: no address")
	}
	c, err := s.dial(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("netstack: dial TCP %s: %w", to, err)
	}
	return c, nil
}

func (s *Stack) dial(ctx context.Context, to netip.AddrPort) (*stream, error) {
	return dialFrom(ctx, s.stack, nil, to)
}

// dialFrom opens a connection, from local unless that is nil.
func dialFrom(ctx context.Context, s *stack.Stack, local *tcpip.FullAddress, to netip.AddrPort) (*stream, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	wq := new(waiter.Queue)
	ep, terr := s.NewEndpoint(tcp.ProtocolNumber, network(to.Addr()), wq)
	if terr != nil {
		return nil, errnoOf(terr)
	}
	if local != nil {
		if terr := ep.Bind(*local); terr != nil {
			ep.Close()
			return nil, errnoOf(terr)
		}
	}
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	terr = ep.Connect(fullAddress(to))
	if _, started := terr.(*tcpip.ErrConnectStarted); started {
		select {
		case <-ctx.Done():
			ep.Close()
			return nil, context.Cause(ctx)
		case <-ready:
		}
		terr = ep.LastError()
	}
	if terr != nil {
		ep.Close()
		return nil, errnoOf(terr)
	}
	return newStream(s.Clock(), wq, ep), nil
}

// errnoOf is a gVisor error as the kernel would have it, so that callers can tell
// a refused connection from a host that is out of reach.
func errnoOf(err tcpip.Error) error {
	switch err.(type) {
	case *tcpip.ErrConnectionRefused:
		return syscall.ECONNREFUSED
	case *tcpip.ErrConnectionReset:
		return syscall.ECONNRESET
	case *tcpip.ErrConnectionAborted, *tcpip.ErrAborted: // by the other end, and by this one
		return syscall.ECONNABORTED
	case *tcpip.ErrClosedForSend:
		return syscall.EPIPE
	case *tcpip.ErrNotConnected:
		return syscall.ENOTCONN
	case *tcpip.ErrHostUnreachable, *tcpip.ErrHostDown:
		return syscall.EHOSTUNREACH
	case *tcpip.ErrNetworkUnreachable:
		return syscall.ENETUNREACH
	case *tcpip.ErrTimeout:
		return syscall.ETIMEDOUT
	case *tcpip.ErrMessageTooLong:
		return syscall.EMSGSIZE
	default:
		return errors.New(err.String())
	}
}

// listener accepts streams.
type listener struct {
	clock  tcpip.Clock
	ep     tcpip.Endpoint
	wq     *waiter.Queue
	addr   *net.TCPAddr
	once   sync.Once
	closed chan struct{}
}

var _ net.Listener = (*listener)(nil)

// ListenTCP listens on a port of the overlay address; zero picks one. Connections
// are as those of DialTCP. They stay when the listener is closed.
func (s *Stack) ListenTCP(port uint16) (net.Listener, error) {
	fail := func(err tcpip.Error) (net.Listener, error) {
		return nil, fmt.Errorf("netstack: listen on TCP port %d: %s", port, err)
	}
	wq := new(waiter.Queue)
	ep, err := s.stack.NewEndpoint(tcp.ProtocolNumber, ipv6.ProtocolNumber, wq)
	if err != nil {
		return fail(err)
	}
	if err := ep.Bind(s.local(port)); err != nil {
		ep.Close()
		return fail(err)
	}
	if err := ep.Listen(backlog); err != nil {
		ep.Close()
		return fail(err)
	}
	local, err := ep.GetLocalAddress()
	if err != nil {
		ep.Close()
		return fail(err)
	}
	addr := &net.TCPAddr{IP: local.Addr.AsSlice(), Port: int(local.Port)}
	return &listener{clock: s.stack.Clock(), ep: ep, wq: wq, addr: addr, closed: make(chan struct{})}, nil
}

// Accept implements [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	l.wq.EventRegister(&entry)
	defer l.wq.EventUnregister(&entry)
	for {
		select {
		case <-l.closed:
			return nil, l.failed(net.ErrClosed)
		default:
		}
		ep, wq, err := l.ep.Accept(nil)
		if err == nil {
			return newStream(l.clock, wq, ep), nil
		}
		if _, wait := err.(*tcpip.ErrWouldBlock); !wait {
			if _, gone := err.(*tcpip.ErrInvalidEndpointState); gone {
				return nil, l.failed(net.ErrClosed) // the stack was closed
			}
			return nil, l.failed(errors.New(err.String()))
		}
		select {
		case <-l.closed:
		case <-ready:
		}
	}
}

func (l *listener) failed(err error) error {
	return &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: err}
}

// Close implements [net.Listener].
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.ep.Close()
	})
	return nil
}

// Addr implements [net.Listener].
func (l *listener) Addr() net.Addr { return l.addr }
