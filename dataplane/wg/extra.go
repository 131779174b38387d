package wg

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"corax/dataplane/internal/udpbatch"
)

const (
	// maxExtra bounds the sockets besides the tunnel's.
	maxExtra = 256
	// extraBatch is how many datagrams one of them hands on at once.
	extraBatch = 32
)

// extra is one socket besides the tunnel's: light while it may be one of many,
// and as good as the tunnel's when it is kept.
type extra struct {
	reader
	id     Socket
	sock   *udpbatch.Conn
	queued int // messages in the feed; guarded by feed.mu
}

type extraMap map[Socket]*extra

// extras owns those sockets and their receive loops.
type extras struct {
	open atomic.Pointer[extraMap] // never nil, never changed in place

	mu      sync.Mutex // guards what follows, and replacing open
	running bool
	last    Socket
	loops   sync.WaitGroup
}

// OpenSockets opens n more UDP sockets on ports that the kernel chooses, for IPv6
// or IPv4. What arrives there is handled as on the tunnel socket. At most 256 are
// open at a time. On an error none stays open. It works while Run does.
func (d *Device) OpenSockets(n int, v6 bool) ([]Socket, error) {
	x := &d.bind.extras
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case !x.running:
		return nil, errors.New("wg: open sockets: the device does not run")
	case n < 0 || len(*x.open.Load())+n > maxExtra:
		return nil, fmt.Errorf("wg: open %d sockets: more than %d would be open", n, maxExtra)
	}
	addr := netip.IPv4Unspecified()
	if v6 {
		addr = netip.IPv6Unspecified()
	}
	made := make([]*extra, 0, n)
	for range n {
		c, err := udpbatch.Listen(udpbatch.Config{Addr: netip.AddrPortFrom(addr, 0), PacketInfo: true, Light: true, Slots: d.bind.bounds.Slots})
		if err != nil {
			for _, e := range made {
				_ = e.sock.Close()
			}
			return nil, fmt.Errorf("wg: open sockets: %w", err)
		}
		x.last++
		made = append(made, &extra{reader: reader{b: d.bind}, id: x.last, sock: c})
	}
	next := make(extraMap)
	maps.Copy(next, *x.open.Load())
	ids := make([]Socket, 0, n)
	for _, e := range made {
		next[e.id] = e
		ids = append(ids, e.id)
		x.loops.Go(e.loop)
	}
	x.open.Store(&next)
	return ids, nil
}

// CloseSockets closes all sockets that OpenSockets made but those to keep, which
// get what a path needs to be fast. Paths from the others lead nowhere then.
func (d *Device) CloseSockets(keep ...Socket) { d.bind.extras.close(keep) }

func (x *extras) close(keep []Socket) {
	x.mu.Lock()
	defer x.mu.Unlock()
	next := make(extraMap)
	for id, e := range *x.open.Load() {
		if slices.Contains(keep, id) {
			next[id] = e
			e.sock.Promote()
			continue
		}
		_ = e.sock.Close()
	}
	x.open.Store(&next)
}

func (x *extras) run() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.running = true
}

// stop closes all and joins their loops.
func (x *extras) stop() {
	x.mu.Lock()
	x.running = false
	x.mu.Unlock()
	x.close(nil)
	x.loops.Wait()
}

// loop hands on what the socket receives, until it is closed.
func (e *extra) loop() {
	grams := make([]udpbatch.Datagram, extraBatch)
	for {
		n, err := e.sock.Read(grams)
		if err != nil {
			return // closed
		}
		e.begin()
		for i := range grams[:n] {
			g := &grams[i]
			if msg, ep := e.direct(g.Data, g.From, g.Local, e.id); ep != nil {
				e.b.feed.put(msg, ep, &e.queued)
			}
		}
		e.end()
	}
}
