package wg

import (
	"errors"
	"net"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"corax/dataplane/internal/udpbatch"
)

// receiver is the receive loop of one tunnel socket. Only the device's goroutine
// for it calls receive.
type receiver struct {
	reader
	sock   *udpbatch.Conn
	closed <-chan struct{}
	timer  *time.Timer
	grams  []udpbatch.Datagram
	handed handed

	overflows uint64 // of the socket, at the last look
}

func newReceiver(b *bind, c *udpbatch.Conn, closed <-chan struct{}) *receiver {
	r := &receiver{reader: reader{b: b}, sock: c, closed: closed, grams: make([]udpbatch.Datagram, b.bounds.Batch)}
	r.timer = time.NewTimer(time.Hour)
	r.timer.Stop()
	return r
}

// receive fills bufs with WireGuard messages and hands on everything else. It
// returns at least one, or net.ErrClosed after Close.
func (r *receiver) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	r.handed.check(bufs, r.b.drops)
	for {
		if !r.b.in.wait(r.timer, r.closed) {
			return 0, net.ErrClosed
		}
		got, err := r.sock.Read(r.grams[:min(len(bufs), len(r.grams))])
		if errors.Is(err, net.ErrClosed) {
			return 0, net.ErrClosed
		}
		if err != nil {
			return 0, err
		}
		if n := r.sort(got, bufs, sizes, eps); n > 0 {
			return n, nil
		}
	}
}

// sort copies the WireGuard messages among the first got datagrams.
func (r *receiver) sort(got int, bufs [][]byte, sizes []int, eps []conn.Endpoint) int {
	r.begin()
	n, packets := 0, 0
	for i := range r.grams[:got] {
		g := &r.grams[i]
		data, ep := r.direct(g.Data, g.From, g.Local, 0)
		if ep == nil {
			continue
		}
		if len(data) > len(bufs[n]) {
			r.b.drops.add(dropTooBig, 1)
			continue
		}
		sizes[n] = copy(bufs[n], data)
		eps[n] = ep
		if data[0] != 4 {
			r.handed.add(n, bufs[n])
		} else if len(data) > sizeKeepalive {
			packets++
		}
		n++
	}
	r.watch()
	r.end()
	if packets > 0 {
		r.b.in.add(packets)
	}
	return n
}

// watch tells the relay's fairness of datagrams that the kernel dropped.
func (r *receiver) watch() {
	if n := r.sock.Overflows(); n != r.overflows {
		r.overflows = n
		if r.out.n > 0 {
			r.b.fair.lost(r.now)
		}
	}
}

// handed notes the buffers in which handshake messages were handed to
// wireguard-go. It takes those that it has room for out of its slice; what is
// still there was dropped, without another trace.
type handed struct {
	n  int
	at [batchSize]int
	in [batchSize]*byte
}

func (h *handed) add(i int, buf []byte) {
	if h.n < len(h.at) {
		h.at[h.n], h.in[h.n] = i, &buf[0]
		h.n++
	}
}

func (h *handed) check(bufs [][]byte, d *drops) {
	for j := range h.n {
		if i := h.at[j]; i < len(bufs) && &bufs[i][0] == h.in[j] {
			d.add(dropBusy, 1)
		}
		h.in[j] = nil
	}
	h.n = 0
}
