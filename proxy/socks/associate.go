package socks

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"corax/proxy/datagram"
)

const (
	// maxHead is the longest head of a relayed datagram, in bytes.
	maxHead = 3 + 1 + 16 + 2
	// maxAsked bounds the destinations and names of one association.
	maxAsked = 1024
	// maxLooking bounds the names that are looked up for one association, and
	// maxWaiting the datagrams that wait for one of them.
	maxLooking, maxWaiting = 16, 8
	// maxLookups bounds the names that are looked up for all.
	maxLookups = 128
)

// association relays the datagrams of one client. It ends with the connection that
// asked for it.
type association struct {
	s     *Server
	relay *net.UDPConn // towards the client
	wg    sync.WaitGroup

	mu      sync.Mutex
	client  netip.AddrPort                    // who sent first; nobody else gets answers
	asked   map[netip.AddrPort]netip.AddrPort // as what the client knows who answers; nobody else is listened to
	ways    map[target]*way
	looking int               // names that are being looked up
	far     [2]net.PacketConn // IPv4, IPv6; nil until needed
	closed  bool
}

// way is where the datagrams for one host and port go. It keeps the first address that
// was found: a flow must not jump from one to another.
type way struct {
	to, shown netip.AddrPort // zero while it is looked up
	waiting   [][]byte
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
	a := &association{s: s, relay: relay, asked: map[netip.AddrPort]netip.AddrPort{}, ways: map[target]*way{}}
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

// fromClient relays what the client sends. A name is looked up beside it, so that one
// name server that is slow holds up nobody but who asks for that name.
func (a *association) fromClient(ctx context.Context) {
	for {
		if datagram.Wait(a.relay) != nil || !a.oneFromClient(ctx) {
			return
		}
	}
}

// oneFromClient relays what is there, and reports whether more may come. A buffer is
// only held for that: most associations are at rest.
func (a *association) oneFromClient(ctx context.Context) bool {
	b := a.s.buffers.Get()
	defer a.s.buffers.Put(b)
	n, from, err := a.relay.ReadFromUDPAddrPort(b.Payload())
	if err != nil {
		return false
	}
	if !a.isClient(from) || !a.take(ctx, b.Payload()[:n]) {
		a.s.datagrams.Add(1)
	}
	return true
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

// take sends one datagram of the client, or keeps it until its way is known.
func (a *association) take(ctx context.Context, b []byte) bool {
	t, payload, err := parseDatagram(b)
	if err != nil {
		return false
	}
	_, err = netip.ParseAddr(t.host)
	w, mine := a.way(t, payload, err != nil)
	switch {
	case w == nil:
		return false
	case w.to.IsValid():
		return a.send(w, payload)
	case !mine:
		return true // it waits
	case err == nil: // an address: nobody is asked
		a.find(ctx, t, w)
		return true
	}
	a.wg.Go(func() {
		defer func() { <-a.s.lookups }()
		a.find(ctx, t, w)
	})
	return true
}

// way returns the way for a destination as it is now; nil when there is no room. Of one
// that is not known yet payload waits, and whoever gets mine finds it.
func (a *association) way(t target, payload []byte, name bool) (w *way, mine bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w = a.ways[t]; w != nil {
		if w.to.IsValid() {
			return &way{to: w.to, shown: w.shown}, false
		}
		if len(w.waiting) >= maxWaiting {
			return nil, false
		}
		w.waiting = append(w.waiting, bytes.Clone(payload))
		return &way{}, false
	}
	if name {
		if a.looking >= maxLooking {
			return nil, false
		}
		select {
		case a.s.lookups <- struct{}{}:
		default:
			return nil, false
		}
		a.looking++
	}
	if len(a.ways) >= maxAsked {
		clear(a.ways)
	}
	w = &way{waiting: [][]byte{bytes.Clone(payload)}}
	a.ways[t] = w
	return w, true
}

// find looks for the way, and sends what waited for it.
func (a *association) find(ctx context.Context, t target, w *way) {
	to, shown, err := a.lookUp(ctx, t)
	a.mu.Lock()
	if _, e := netip.ParseAddr(t.host); e != nil {
		a.looking--
	}
	waiting := w.waiting
	w.waiting = nil
	if err == nil {
		w.to, w.shown = to, shown
	} else if a.ways[t] == w {
		delete(a.ways, t)
	}
	a.mu.Unlock()
	if err != nil {
		a.s.undialled(err)
	}
	for _, b := range waiting {
		if err != nil || !a.send(&way{to: to, shown: shown}, b) {
			a.s.datagrams.Add(1)
		}
	}
}

// lookUp returns where the datagrams for a destination go, and its address as the
// client knows it, which differ for a Service.
func (a *association) lookUp(ctx context.Context, t target) (to, shown netip.AddrPort, err error) {
	ips, err := a.s.cfg.Dialer.Addrs(ctx, t.host)
	for _, ip := range ips {
		var list []netip.AddrPort
		shown = netip.AddrPortFrom(ip, t.port)
		if list, err = a.s.cfg.Dialer.Targets(ctx, "udp", shown); err == nil {
			return list[0], shown, nil
		}
	}
	return netip.AddrPort{}, netip.AddrPort{}, err
}

func (a *association) send(w *way, payload []byte) bool {
	far := a.open(w)
	if far == nil {
		return false
	}
	if _, err := far.WriteTo(payload, net.UDPAddrFromAddrPort(w.to)); err != nil {
		return false
	}
	a.s.up.Add(uint64(len(payload)))
	return true
}

// open returns the socket for a way, and notes that it was asked.
func (a *association) open(w *way) net.PacketConn {
	v6 := 0
	if w.to.Addr().Is6() {
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
	a.asked[w.to] = w.shown
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
	for {
		err := datagram.Wait(far)
		if err == nil {
			err = a.oneFromFar(far)
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			a.refused(err)
			continue
		}
		if err != nil {
			return
		}
	}
}

func (a *association) oneFromFar(far net.PacketConn) error {
	b := a.s.buffers.Get()
	defer a.s.buffers.Put(b)
	n, addr, err := far.ReadFrom(b.Payload())
	if err != nil {
		return err
	}
	from := addrPortOf(addr)
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	a.mu.Lock()
	shown, asked := a.asked[from]
	client := a.client
	a.mu.Unlock()
	var head [maxHead]byte
	h := appendDatagram(head[:0], cmp.Or(shown, from))
	p := b[datagram.Head-len(h) : datagram.Head+n]
	copy(p, h)
	if !asked {
		a.s.datagrams.Add(1)
		return nil
	}
	if _, err := a.relay.WriteToUDPAddrPort(p, client); err != nil {
		a.s.datagrams.Add(1)
		return nil
	}
	a.s.down.Add(uint64(n))
	return nil
}

// refused ends the flow with a destination that has no socket for it: SOCKS has no
// word for that, but another endpoint of a Service may be found.
func (a *association) refused(err error) {
	a.s.refused.Add(1)
	var op *net.OpError
	if !errors.As(err, &op) {
		return
	}
	from := addrPortOf(op.Addr)
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.asked, from)
	for t, w := range a.ways {
		if w.to == from {
			delete(a.ways, t)
		}
	}
}
