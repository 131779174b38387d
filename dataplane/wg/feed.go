package wg

import (
	"net"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"corax/dataplane/key"
)

const (
	// feedSize is the most messages that wait for wireguard-go, from all streams
	// and extra sockets, and feedShare those from one.
	feedSize  = 1024
	feedShare = feedSize / 4
	// feedMax is the size of the largest: a packet of the largest inner MTU,
	// with room. Memory for it is only taken once a message is as large.
	feedMax = 9216
)

// feed is the queue of WireGuard messages that did not come from a tunnel socket,
// and the device's receive function for them.
type feed struct {
	b     *bind
	timer *time.Timer // of the one that receives
	hand  handed      // likewise
	ready chan struct{}
	size  int // Bounds.Feed

	mu    sync.Mutex
	slots []slot // a ring, made by the first message
	head  int
	n     int
}

// slot is one message that waits.
type slot struct {
	data []byte
	ep   conn.Endpoint
	held *int // how many of its origin wait
}

func newFeed(b *bind) *feed {
	f := &feed{b: b, size: b.bounds.Feed, timer: time.NewTimer(time.Hour), ready: make(chan struct{}, 1)}
	f.timer.Stop()
	return f
}

// put copies a message into the queue. held counts those of one origin, and is
// guarded by f.mu.
func (f *feed) put(data []byte, ep conn.Endpoint, held *int) {
	if len(data) > feedMax {
		f.b.drops.add(dropTooBig, 1)
		return
	}
	f.mu.Lock()
	if f.n == f.size || *held >= max(1, f.size/4) {
		f.mu.Unlock()
		f.b.drops.add(dropFeed, 1)
		return
	}
	if f.slots == nil {
		f.slots = make([]slot, f.size)
	}
	s := &f.slots[(f.head+f.n)%f.size]
	s.data = append(s.data[:0], data...)
	s.ep, s.held = ep, held
	*held++
	f.n++
	f.mu.Unlock()
	select {
	case f.ready <- struct{}{}:
	default:
	}
}

// receiver returns the receive function for one opening of the bind.
func (f *feed) receiver(closed <-chan struct{}) conn.ReceiveFunc {
	return func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		f.hand.check(bufs, f.b.drops)
		for {
			if !f.b.in.wait(f.timer, closed) {
				return 0, net.ErrClosed
			}
			if n := f.take(bufs, sizes, eps); n > 0 {
				return n, nil
			}
			select {
			case <-closed:
				return 0, net.ErrClosed
			case <-f.ready:
			}
		}
	}
}

func (f *feed) take(bufs [][]byte, sizes []int, eps []conn.Endpoint) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, packets := 0, 0
	for ; n < len(bufs) && f.n > 0; n++ {
		s := &f.slots[f.head]
		sizes[n] = copy(bufs[n], s.data)
		eps[n] = s.ep
		if s.data[0] != 4 {
			f.hand.add(n, bufs[n])
		} else if len(s.data) > sizeKeepalive {
			packets++
		}
		*s.held--
		s.ep, s.held = nil, nil
		f.head = (f.head + 1) % f.size
		f.n--
	}
	if packets > 0 {
		f.b.in.add(packets)
	}
	return n
}

// Inject takes datagrams that came over a stream of peer k. They are handled as
// those of a socket, and relayed before it returns; what is WireGuard for us
// waits in a bounded queue. The memory may be changed, and is not kept. It does
// not block. Safe for concurrent use, but the datagrams of one stream only stay
// in order when one goroutine hands them on.
func (d *Device) Inject(k key.Public, s Stream, datagrams [][]byte) {
	if s == nil || len(datagrams) == 0 {
		return
	}
	b := d.bind
	p := d.table.get(k)
	if p == nil {
		b.drops.add(dropPeer, len(datagrams))
		return
	}
	r := b.readers.Get().(*reader)
	r.begin()
	for _, data := range datagrams {
		r.came(way{stream: s})
		r.owner = p
		if msg, ep := r.take(data); ep != nil {
			b.feed.put(msg, ep, &p.queued)
		}
	}
	r.end()
	r.last = answer{} // keeps neither the stream nor the peer
	r.cur, r.owner, r.line = way{}, nil, line{}
	b.readers.Put(r)
}
