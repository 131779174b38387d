package natlab

import (
	"net/netip"
	"slices"
	"time"
)

// Stream is one end of a reliable, ordered pipe of messages: what TCP gives,
// without bandwidth. Loss becomes delay. It needs a path from the host that
// opened it when it is opened, passes NATs and routers that block UDP, and
// ends when a router on it reboots.
type Stream struct {
	lab    *Lab
	host   *Host
	peer   *Stream
	remote netip.AddrPort
	path   []crossing
	recv   func(now time.Time, data []byte)
	closed func(now time.Time)
	last   time.Time // arrival of the newest message sent from this end
	isDown bool
	opener bool // this end dialled
}

// crossing is one network on a stream's path, and the router behind it.
type crossing struct {
	from, to *Interface
	router   *Router
	epoch    int
}

// What a real TCP takes to notice.
const (
	retransmit = 200 * time.Millisecond
	giveUp     = 15 * time.Second
	mss        = 1200 // bytes that one loss delays
)

// ListenStream calls accept for each stream that is opened to the port.
// Accept sets the stream's callbacks.
func (h *Host) ListenStream(port uint16, accept func(s *Stream)) { h.streams[port] = accept }

// Dial opens a stream. Opened is called with nil when there is no way, or
// nobody listens; it sets the stream's callbacks.
func (h *Host) Dial(to netip.AddrPort, opened func(s *Stream)) {
	path, end := h.pathTo(to.Addr())
	if end == nil || h.down || end.down || end.streams[to.Port()] == nil {
		h.lab.After(time.Second, func() { opened(nil) })
		return
	}
	s := &Stream{lab: h.lab, host: h, remote: to, path: path, opener: true}
	p := &Stream{lab: h.lab, host: end, peer: s, path: path}
	s.peer = p
	if src, ok := path[len(path)-1].from.addr(to.Addr().Is6()); ok {
		p.remote = netip.AddrPortFrom(src, to.Port())
	}
	h.lab.After(s.delay(0), func() {
		if !s.works() || end.streams[to.Port()] == nil {
			h.lab.After(time.Second, func() { opened(nil) })
			return
		}
		h.conns, end.conns = append(h.conns, s), append(end.conns, p)
		end.streams[to.Port()](p)
		h.lab.After(s.delay(0), func() { opened(s) })
	})
}

// pathTo follows the default routes to a host.
func (h *Host) pathTo(dst netip.Addr) ([]crossing, *Host) {
	from := h.route(dst)
	var path []crossing
	for from != nil && len(path) < 16 {
		to := from.net.next(from, dst)
		if to == nil {
			return nil, nil
		}
		switch n := to.node.(type) {
		case *Host:
			return append(path, crossing{from: from, to: to}), n
		case *Router:
			if to != n.in { // nothing comes in unasked
				return nil, nil
			}
			path = append(path, crossing{from, to, n, n.epoch})
			from = n.out
		}
	}
	return nil, nil
}

// OnReceive sets what is called with each message; the data is the receiver's.
func (s *Stream) OnReceive(fn func(now time.Time, data []byte)) { s.recv = fn }

// OnClose sets what is called once when the stream has ended.
func (s *Stream) OnClose(fn func(now time.Time)) { s.closed = fn }

// Remote returns the address of the other end as this end sees it.
func (s *Stream) Remote() netip.AddrPort { return s.remote }

// Send sends a message. The data is copied. On a stream that has lost its path
// the message is lost, and both ends learn within 15 s; the end that opened it,
// a round trip after it sends through a router that has rebooted, since its
// packets then come from another port, and are refused.
func (s *Stream) Send(data []byte) {
	if s.isDown || s.host.down {
		return
	}
	if !s.works() {
		wait := giveUp
		if s.opener && s.rebooted() && !s.peer.host.down {
			wait = 2 * s.delay(0)
		}
		s.lab.After(wait, s.end)
		s.lab.After(giveUp, s.peer.end)
		return
	}
	at := s.lab.now.Add(s.delay(len(data)))
	if at.Before(s.last) {
		at = s.last
	}
	s.last = at
	data = slices.Clone(data)
	s.lab.After(at.Sub(s.lab.now), func() {
		if p := s.peer; !p.isDown && !p.host.down && p.recv != nil {
			p.recv(s.lab.now, data)
		}
	})
}

// Close ends the stream; the other end learns it one way later.
func (s *Stream) Close() {
	d := s.delay(0)
	s.end()
	if s.works() {
		s.lab.After(d, s.peer.end)
	} else {
		s.lab.After(giveUp, s.peer.end)
	}
}

func (s *Stream) end() {
	if s.isDown {
		return
	}
	s.isDown = true
	s.host.conns = slices.DeleteFunc(s.host.conns, func(have *Stream) bool { return have == s })
	if s.closed != nil && !s.host.down {
		s.closed(s.lab.now)
	}
}

func (s *Stream) works() bool {
	if s.host.down || s.peer.host.down || s.peer.isDown {
		return false
	}
	if s.rebooted() {
		return false
	}
	for _, c := range s.path {
		if len(c.from.prefixes) == 0 || len(c.to.prefixes) == 0 {
			return false
		}
		if c.from.net.path(c.from, c.to).Loss >= 1 {
			return false
		}
	}
	return true
}

func (s *Stream) rebooted() bool {
	return slices.ContainsFunc(s.path, func(c crossing) bool { return c.router != nil && c.router.epoch != c.epoch })
}

// delay draws how long a message takes, retransmissions included.
func (s *Stream) delay(size int) time.Duration {
	var sum time.Duration
	for _, c := range s.path {
		link := c.from.net.path(c.from, c.to)
		sum += link.Latency
		if link.Jitter > 0 {
			sum += time.Duration(s.lab.rand.Int64N(int64(link.Jitter) + 1))
		}
		for sent := 0; sent <= size && link.Loss > 0 && link.Loss < 1; sent += mss {
			for s.lab.rand.Float64() < link.Loss {
				sum += retransmit
			}
		}
	}
	return sum
}
