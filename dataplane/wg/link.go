package wg

import (
	"bytes"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"corax/dataplane"
	"corax/dataplane/key"
)

var (
	_ tun.Device       = (*link)(nil)
	_ dataplane.Sender = (*link)(nil)
)

// link is wireguard-go's tun.Device. Send copies packets straight into the
// buffers that the device's blocked Read offered, so there is no queue.
type link struct {
	name  string
	recv  dataplane.Sender
	drops *drops
	gate  *gate
	in    *window
	table *table
	want  func(*peer, time.Duration) // bind.want
	batch int                        // Bounds.Batch

	mtu    atomic.Int32
	owners atomic.Pointer[bart.Table[*peer]] // who has which destination
	open   atomic.Bool                       // a device reads
	closed chan struct{}

	events struct {
		sync.Mutex
		c    chan tun.Event
		done bool
	}

	mu    sync.Mutex // serialises Send, and guards gate but for passed
	timer *time.Timer

	// Read stores offer, then sends on ready. Whoever took ready may fill the
	// offer, and must answer on filled or put ready back.
	offer  offer
	ready  chan struct{} // capacity 1
	filled chan int      // capacity 1

	batches sync.Pool // of *[]dataplane.Packet
}

// offer is what one Read waits to have filled.
type offer struct {
	bufs   [][]byte
	sizes  []int
	offset int
}

func newLink(name string, mtu int, recv dataplane.Sender, b *bind) *link {
	l := &link{
		name: name, recv: recv, drops: b.drops, gate: b.gate, in: b.in, table: b.table, want: b.want, batch: b.bounds.Batch,
		closed: make(chan struct{}),
		timer:  time.NewTimer(time.Hour),
		ready:  make(chan struct{}, 1),
		filled: make(chan int, 1),
	}
	l.timer.Stop()
	l.events.c = make(chan tun.Event, 1)
	l.mtu.Store(int32(mtu))
	l.owners.Store(new(bart.Table[*peer]))
	l.batches.New = func() any { b := make([]dataplane.Packet, 0, l.batch); return &b }
	return l
}

// Send hands packets to wireguard-go.
func (l *link) Send(batch []dataplane.Packet) {
	if len(batch) == 0 {
		return
	}
	if !l.open.Load() {
		l.drops.add(dropStopped, len(batch))
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(batch) > 0 {
		if !l.waitLocked() {
			l.drops.add(dropStopped, len(batch))
			return
		}
		taken, n := l.fillLocked(batch)
		batch = batch[taken:]
		if n == 0 {
			l.ready <- struct{}{} // nothing was for the device: the offer stands
			continue
		}
		l.filled <- n
	}
}

// waitLocked blocks until the gate has room and the device reads. It returns
// false when the link is closed.
func (l *link) waitLocked() bool {
	for l.gate.full() {
		l.gate.waiting.Store(true)
		if !l.gate.full() {
			break
		}
		l.timer.Reset(waitStep)
		select {
		case <-l.closed:
			return false
		case <-l.gate.wake:
		case <-l.timer.C:
			l.gate.sweep(l.table.all(), l.gate.now())
		}
	}
	l.gate.waiting.Store(false)
	select {
	case <-l.closed:
		return false
	case <-l.ready:
		return true
	}
}

// fillLocked copies packets into the offer. It returns how many packets of the
// batch it consumed, and how many of them are in the offer.
func (l *link) fillLocked(batch []dataplane.Packet) (taken, n int) {
	o := &l.offer
	owners := l.owners.Load()
	now := l.gate.now()
	var last []byte // destination of the packet before: most have the same
	var p *peer
	fresh := false // nobody was told yet that p is wanted
	for taken < len(batch) && n < len(o.bufs) {
		b := batch[taken].Data
		taken++
		if dst := destination(b); len(dst) == 0 || !bytes.Equal(dst, last) {
			p, last = owner(owners, dst), dst
			fresh = true
		}
		if p == nil {
			l.drops.add(dropNoPeer, 1)
			continue
		}
		if len(b) > min(device.MaxContentSize, len(o.bufs[n])-o.offset) {
			l.drops.add(dropTooBig, 1)
			continue
		}
		if fresh && !chatter(b) {
			fresh = false
			l.want(p, now)
		}
		admitted := l.gate.admit(p, now)
		if !p.flow.flowing && !toOverlay(b) {
			p.starved.Add(1)
		}
		if !admitted {
			l.drops.add(dropNoSession, 1)
			continue
		}
		o.sizes[n] = copy(o.bufs[n][o.offset:], b)
		n++
	}
	return taken, n
}

// destination returns the bytes of packet b that hold its destination; none when
// b is no IP packet.
func destination(b []byte) []byte {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		return b[16:20]
	case len(b) >= 40 && b[0]>>4 == 6:
		return b[24:40]
	default:
		return nil
	}
}

// owner returns the peer whose allowed IPs hold an address.
func owner(owners *bart.Table[*peer], addr []byte) *peer {
	dst, ok := netip.AddrFromSlice(addr)
	if !ok {
		return nil
	}
	p, _ := owners.Lookup(dst)
	return p
}

// toOverlay reports whether packet b goes to an overlay address.
func toOverlay(b []byte) bool {
	return b[0]>>4 == 6 && key.OverlayPrefix.Contains(netip.AddrFrom16([16]byte(b[24:40])))
}

// chatter reports whether packet b is what agents tell each other: anything to
// an overlay address but TCP, which carries the proxy.
func chatter(b []byte) bool { return toOverlay(b) && b[6] != 6 }

// Read waits for packets from Send. Only the device's reader calls it.
func (l *link) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	l.offer = offer{bufs, sizes, offset}
	l.ready <- struct{}{}
	select {
	case n := <-l.filled:
		return n, nil
	case <-l.closed:
	}
	// A Send may be at the buffers: take the offer back, or wait for it.
	select {
	case <-l.ready:
		return 0, os.ErrClosed
	case n := <-l.filled:
		return n, nil
	}
}

// Write passes decrypted packets on, before it returns.
func (l *link) Write(bufs [][]byte, offset int) (int, error) {
	l.in.busy.Add(1)
	defer l.in.busy.Add(-1)
	defer l.in.take(len(bufs))
	batch := l.batches.Get().(*[]dataplane.Packet)
	packets := (*batch)[:0]
	for _, b := range bufs {
		packets = append(packets, dataplane.Packet{})
		packets[len(packets)-1].Data = b[offset:len(b):len(b)]
	}
	l.recv.Send(packets)
	clear(packets)
	*batch = packets
	l.batches.Put(batch)
	return len(bufs), nil
}

// forget takes the packets of removed peers out of the count.
func (l *link) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gate.sweep(l.table.all(), l.gate.now())
}

// setMTU changes the MTU and tells the device.
func (l *link) setMTU(mtu int) {
	l.mtu.Store(int32(mtu))
	l.events.Lock()
	defer l.events.Unlock()
	if l.events.done {
		return
	}
	select {
	case l.events.c <- tun.EventMTUUpdate:
	default: // the device has one to read already
	}
}

// File returns nil: there is no file.
func (l *link) File() *os.File { return nil }

// MTU returns the inner MTU in bytes.
func (l *link) MTU() (int, error) { return int(l.mtu.Load()), nil }

// Name returns the interface name.
func (l *link) Name() (string, error) { return l.name, nil }

// Events returns the channel of MTU updates. It brings no EventUp: Run brings
// the device up itself, so that it sees the error.
func (l *link) Events() <-chan tun.Event { return l.events.c }

// BatchSize returns the number of packets per Read and Write.
func (l *link) BatchSize() int { return l.batch }

// Close makes Read and Send return. The device closes once; a second Close does
// nothing.
func (l *link) Close() error {
	l.events.Lock()
	defer l.events.Unlock()
	if l.events.done {
		return nil
	}
	l.events.done = true
	l.open.Store(false)
	close(l.closed)
	close(l.events.c)
	return nil
}
