package inner

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"corax/dataplane/netstack"
)

const (
	maxDatagram = 65535
	// maxWaiting bounds the datagrams that wait for a flow to take them.
	maxWaiting = 128
)

// ends names a flow.
type ends struct{ from, to netip.AddrPort }

// flow is what a program sends from one port to another, and the answers.
type flow struct {
	ends
	h     *Handler
	site  *netstack.Site
	quote netstack.Quote // of the first packet
	out   chan []byte    // from whoever receives packets, which does not wait
	end   context.CancelFunc

	last   atomic.Int64 // Unix nanoseconds
	twoWay atomic.Bool
}

// UDP implements [netstack.SiteHandler].
func (h *Handler) UDP(d *netstack.Datagram) {
	f := h.flow(d)
	if f == nil {
		h.full.Add(1)
		return
	}
	select {
	case f.out <- bytes.Clone(d.Payload):
	default:
		h.datagrams.Add(1)
	}
}

// Lost implements [netstack.SiteHandler]: the program has closed its socket.
func (h *Handler) Lost(l netstack.Lost) {
	h.mu.Lock()
	f := h.flows[ends{l.To, l.From}]
	h.mu.Unlock()
	if f != nil {
		f.end()
	}
}

// flow returns the flow of a datagram; nil when there is no room.
func (h *Handler) flow(d *netstack.Datagram) *flow {
	e := ends{d.From, d.To}
	h.mu.Lock()
	defer h.mu.Unlock()
	if f := h.flows[e]; f != nil {
		return f
	}
	if len(h.flows) >= h.cfg.Flows {
		return nil
	}
	ctx, end := context.WithCancel(context.Background())
	f := &flow{ends: e, h: h, site: d.Site(), quote: d.Quote(), out: make(chan []byte, maxWaiting), end: end}
	if !f.site.Go(func(site context.Context) { f.run(site, ctx) }) {
		end()
		return nil
	}
	h.flows[e] = f
	h.opened.Add(1)
	return f
}

// run carries the flow until it is idle, refused, or either context ends.
func (f *flow) run(site, ended context.Context) {
	stop := context.AfterFunc(site, f.end)
	defer stop()
	defer f.end()
	defer func() {
		f.h.mu.Lock()
		delete(f.h.flows, f.ends)
		f.h.mu.Unlock()
		f.h.datagrams.Add(uint64(len(f.out))) // whoever has the flow still may add one more
	}()
	far, err := f.h.dial(ended, "udp", f.to)
	if err != nil {
		f.h.log.Debug("cannot send", "to", f.to, "err", err)
		f.tell(err)
		return
	}
	f.last.Store(time.Now().UnixNano())
	var wg sync.WaitGroup
	defer wg.Wait()
	broken := context.AfterFunc(ended, func() { _ = far.Close() })
	defer broken()
	defer f.end()
	wg.Go(func() {
		defer f.end()
		f.send(ended, far)
	})
	if err := f.answers(far); err != nil && ended.Err() == nil {
		f.tell(err)
	}
}

func (f *flow) tell(err error) {
	if r := f.h.reason(err); r != 0 {
		f.site.Reject(f.quote, r)
	}
}

func (f *flow) send(ctx context.Context, far net.Conn) {
	for {
		select {
		case <-ctx.Done():
			return
		case b := <-f.out:
			f.last.Store(time.Now().UnixNano())
			if _, err := far.Write(b); err != nil {
				f.h.datagrams.Add(1)
				if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EMSGSIZE) {
					continue // who reads is told the first
				}
				return
			}
			f.h.up.Add(uint64(len(b)))
		}
	}
}

// answers passes on what comes back; nil: the flow was idle.
func (f *flow) answers(far net.Conn) error {
	defer func() { _ = far.Close() }()
	b := make([]byte, maxDatagram)
	for {
		rest := time.Until(time.Unix(0, f.last.Load()).Add(idle(f.to.Port(), f.twoWay.Load())))
		if rest <= 0 {
			return nil
		}
		_ = far.SetReadDeadline(time.Now().Add(rest))
		n, err := far.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return err
		}
		f.twoWay.Store(true)
		f.last.Store(time.Now().UnixNano())
		f.h.down.Add(uint64(n))
		if f.site.WriteUDP(f.to, f.from, b[:n]) != nil {
			f.h.datagrams.Add(1)
		}
	}
}

// idle is how long a flow may rest: a question to a name server, one that goes both
// ways, and one that nobody answered.
func idle(port uint16, twoWay bool) time.Duration {
	switch {
	case port == dnsPort:
		return 10 * time.Second
	case twoWay:
		return 180 * time.Second
	default:
		return 60 * time.Second
	}
}
