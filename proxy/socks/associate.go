package socks

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	maxDatagram = 65535
	// maxHead is the longest head of a relayed datagram, in bytes.
	maxHead = 3 + 1 + 16 + 2
	// maxAsked bounds the destinations and names of one association.
	maxAsked = 1024
)

// association relays the datagrams of one client. It ends with the connection that
// asked for it.
type association struct {
	s     *Server
	relay *net.UDPConn // towards the client
	wg    sync.WaitGroup

	mu     sync.Mutex
	client netip.AddrPort          // who sent first; nobody else gets answers
	asked  map[netip.AddrPort]bool // nobody else is listened to
	names  map[string]netip.Addr
	far    [2]net.PacketConn // IPv4, IPv6; nil until needed
	closed bool
}

// associate serves UDP ASSOCIATE until the client closes its connection.
func (s *Server) associate(ctx context.Context, c net.Conn) {
	ip := net.IPv4(127, 0, 0, 1)
	if a, ok := c.LocalAddr().(*net.TCPAddr); ok {
		ip = a.IP
	}
	relay, err := net.ListenUDP("udp", &net.UDPAddr{IP: ip})
	if err != nil {
		s.failed.Add(1)
		_, _ = c.Write(appendReply(nil, replyFailed, netip.AddrPort{}))
		return
	}
	a := &association{s: s, relay: relay, asked: map[netip.AddrPort]bool{}, names: map[string]netip.Addr{}}
	defer a.close()
	if _, err := c.Write(appendReply(nil, replyOK, addrPortOf(relay.LocalAddr()))); err != nil {
		return
	}
	_ = c.SetDeadline(time.Time{})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.wg.Go(func() { a.fromClient(ctx) })
	// Nothing more is said on the connection; its end is the end.
	_, _ = io.Copy(io.Discard, c)
}

func (a *association) close() {
	_ = a.relay.Close()
	a.mu.Lock()
	a.closed = true
	for _, f := range a.far {
		if f != nil {
			_ = f.Close()
		}
	}
	a.mu.Unlock()
	a.wg.Wait()
}

// fromClient relays what the client sends. A name is looked up here, and what comes
// meanwhile waits in the socket.
func (a *association) fromClient(ctx context.Context) {
	b := make([]byte, maxDatagram)
	for {
		n, from, err := a.relay.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if !a.isClient(from) || !a.send(ctx, b[:n]) {
			a.s.datagrams.Add(1)
		}
	}
}

// isClient reports whether it was the client that sent: whoever sent first.
func (a *association) isClient(from netip.AddrPort) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.client.IsValid() {
		a.client = from
	}
	return a.client == from
}

func (a *association) send(ctx context.Context, b []byte) bool {
	t, payload, err := parseDatagram(b)
	if err != nil {
		return false
	}
	ip, err := a.lookUp(ctx, t.host)
	if err != nil {
		a.s.undialled(err)
		return false
	}
	to := netip.AddrPortFrom(ip, t.port)
	far := a.open(to)
	if far == nil {
		return false
	}
	if _, err := far.WriteTo(payload, net.UDPAddrFromAddrPort(to)); err != nil {
		return false
	}
	a.s.up.Add(uint64(len(payload)))
	return true
}

// lookUp returns the address of a host. Names keep the first one that was found: a
// flow must not jump from one to another.
func (a *association) lookUp(ctx context.Context, host string) (netip.Addr, error) {
	if ip, ok := a.names[host]; ok { // this goroutine's alone
		return ip, nil
	}
	ips, err := a.s.cfg.Dialer.Addrs(ctx, host)
	if err != nil {
		return netip.Addr{}, err
	}
	if len(a.names) >= maxAsked {
		clear(a.names)
	}
	a.names[host] = ips[0]
	return ips[0], nil
}

// open returns the socket for a destination, and notes that it was asked.
func (a *association) open(to netip.AddrPort) net.PacketConn {
	v6 := 0
	if to.Addr().Is6() {
		v6 = 1
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil
	}
	if len(a.asked) >= maxAsked {
		clear(a.asked)
	}
	a.asked[to] = true
	if a.far[v6] == nil {
		far, err := a.s.cfg.Dialer.ListenUDP(v6 == 1)
		if err != nil {
			return nil
		}
		a.far[v6] = far
		a.wg.Go(func() { a.fromFar(far) })
	}
	return a.far[v6]
}

// fromFar relays answers to the client.
func (a *association) fromFar(far net.PacketConn) {
	b := make([]byte, maxHead+maxDatagram)
	for {
		n, addr, err := far.ReadFrom(b[maxHead:])
		if err != nil {
			return
		}
		from := addrPortOf(addr)
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		a.mu.Lock()
		asked, client := a.asked[from], a.client
		a.mu.Unlock()
		var head [maxHead]byte
		h := appendDatagram(head[:0], from)
		p := b[maxHead-len(h) : maxHead+n]
		copy(p, h)
		if !asked {
			a.s.datagrams.Add(1)
			continue
		}
		if _, err := a.relay.WriteToUDPAddrPort(p, client); err != nil {
			a.s.datagrams.Add(1)
			continue
		}
		a.s.down.Add(uint64(n))
	}
}
