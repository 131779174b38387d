package udpbatch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"corax/dataplane"
)

// Conn is a bound UDP socket. One goroutine may read while any number write.
type Conn struct {
	udp   *net.UDPConn
	raw   syscall.RawConn
	local netip.AddrPort
	v6    bool
	start time.Time

	done  chan struct{} // closed by Close
	close sync.Once

	rx      receiver
	gso     gsoPolicy
	senders sync.Pool   // of *sender
	single  atomic.Bool // no recvmmsg, no sendmmsg
	promote atomic.Bool // wanted; the reader does it
	one     oneSender
	info    bool
	zones   zoneTable
	count   counters
}

// Listen opens and binds the socket.
func Listen(cfg Config) (*Conn, error) {
	if !cfg.Addr.IsValid() {
		return nil, errors.New("udpbatch: no address to bind")
	}
	addr := netip.AddrPortFrom(cfg.Addr.Addr().Unmap(), cfg.Addr.Port())
	c := &Conn{
		v6:    addr.Addr().Is6(),
		start: time.Now(),
		done:  make(chan struct{}),
		info:  cfg.PacketInfo,
	}
	c.single.Store(cfg.single)
	network := "udp4"
	if c.v6 {
		network = "udp6"
	}
	pc, err := new(net.ListenConfig).ListenPacket(context.Background(), network, addr.String())
	if err != nil {
		return nil, err // names the address, and our user names itself
	}
	c.udp = pc.(*net.UDPConn)
	if err := c.setup(cfg); err != nil {
		_ = c.udp.Close()
		return nil, fmt.Errorf("udpbatch: set up %s: %w", addr, err)
	}
	return c, nil
}

func (c *Conn) setup(cfg Config) error {
	la := c.udp.LocalAddr().(*net.UDPAddr).AddrPort()
	c.local = netip.AddrPortFrom(la.Addr().Unmap(), la.Port())
	raw, err := c.udp.SyscallConn()
	if err != nil {
		return err
	}
	c.raw = raw
	var opts options
	var optErr error
	if err := raw.Control(func(fd uintptr) { opts, optErr = setOptions(int(fd), c.v6, cfg) }); err != nil {
		return err
	}
	if optErr != nil {
		return optErr
	}
	c.gso.init(opts.gso)
	c.rx.init(c, cfg)
	c.senders.New = func() any { return newSender(c) }
	return nil
}

// LocalAddr returns the bound address, with the port that was chosen.
func (c *Conn) LocalAddr() netip.AddrPort { return c.local }

// Counters returns the counters of the socket; each name starts with prefix.
func (c *Conn) Counters(prefix string) []dataplane.Counter { return c.count.list(prefix) }

// Overflows returns how many datagrams the kernel dropped because the receive
// queue was full, as far as the datagrams read since tell.
func (c *Conn) Overflows() uint64 { return c.count.rxOverflow.Load() }

// Promote makes a Light socket one like the others, from the next datagram on.
func (c *Conn) Promote() { c.promote.Store(true) }

// Close closes the socket: a blocked Read returns, and later Writes drop. It
// may be called more than once.
func (c *Conn) Close() error {
	var err error
	c.close.Do(func() {
		close(c.done)
		err = c.udp.Close()
	})
	return err
}
