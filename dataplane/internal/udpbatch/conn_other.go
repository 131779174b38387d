//go:build !linux

package udpbatch

import (
	"errors"
	"net"
	"net/netip"
	"sync"

	"corax/dataplane"
)

// Conn is a bound UDP socket. One goroutine may read while any number write.
// This is the plain form, one system call a datagram, for systems that Corax
// only has to compile on.
type Conn struct {
	udp    *net.UDPConn
	buf    []byte
	joined sync.Pool // of *[]byte
	count  counters
}

// Listen opens and binds the socket. Of cfg only Addr counts here.
func Listen(cfg Config) (*Conn, error) {
	if !cfg.Addr.IsValid() {
		return nil, errors.New("udpbatch: no address to bind")
	}
	addr := netip.AddrPortFrom(cfg.Addr.Addr().Unmap(), cfg.Addr.Port())
	network := "udp4"
	if addr.Addr().Is6() {
		network = "udp6"
	}
	udp, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err // names the address, and our user names itself
	}
	c := &Conn{udp: udp, buf: make([]byte, 64<<10)}
	c.joined.New = func() any { return new([]byte) }
	return c, nil
}

// Read fills dst with at least one datagram, blocking until there is one, and
// returns how many. Only one goroutine may read. The only error is
// net.ErrClosed.
func (c *Conn) Read(dst []Datagram) (int, error) {
	if len(dst) == 0 {
		return 0, nil
	}
	for {
		n, from, err := c.udp.ReadFromUDPAddrPort(c.buf)
		if errors.Is(err, net.ErrClosed) {
			return 0, net.ErrClosed
		}
		if err != nil {
			c.count.rxErrors.Add(1)
			continue
		}
		c.count.rxCalls.Add(1)
		c.count.rxDatagrams.Add(1)
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		dst[0] = Datagram{Data: c.buf[:n:n], From: from}
		return 1, nil
	}
}

// Write sends msgs in order and returns how many the kernel took. Safe for
// concurrent use.
func (c *Conn) Write(msgs []Message) (sent int) {
	buf := c.joined.Get().(*[]byte)
	for i := range msgs {
		*buf = append(append((*buf)[:0], msgs[i].Header...), msgs[i].Payload...)
		c.count.txCalls.Add(1)
		if _, err := c.udp.WriteToUDPAddrPort(*buf, msgs[i].To); err != nil {
			c.count.txOther.Add(1)
			continue
		}
		sent++
	}
	c.joined.Put(buf)
	c.count.txDatagrams.Add(uint64(sent))
	return sent
}

// TryWrite sends msgs in order. It returns how many the kernel took; no more are
// refused than those that Write would wait for, which here is none.
func (c *Conn) TryWrite(msgs []Message) (sent, refused int) { return c.Write(msgs), 0 }

// WriteOne sends one datagram. Options are not supported here.
func (c *Conn) WriteOne(m Message, o Options) error {
	if o != (Options{}) {
		return errors.ErrUnsupported
	}
	_, err := c.udp.WriteToUDPAddrPort(append(append([]byte(nil), m.Header...), m.Payload...), m.To)
	return err
}

// Overflows returns zero: this form does not know.
func (c *Conn) Overflows() uint64 { return 0 }

// Promote does nothing: every socket is the same here.
func (c *Conn) Promote() {}

// LocalAddr returns the bound address, with the port that was chosen.
func (c *Conn) LocalAddr() netip.AddrPort {
	la := c.udp.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(la.Addr().Unmap(), la.Port())
}

// Counters returns the counters of the socket; each name starts with prefix.
func (c *Conn) Counters(prefix string) []dataplane.Counter { return c.count.list(prefix) }

// Close closes the socket: a blocked Read returns, and later Writes drop. It
// may be called more than once.
func (c *Conn) Close() error {
	if err := c.udp.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
