package inner

import (
	"bytes"
	"context"
	"encoding/binary"
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
	// idlePing is how long a program may pause between two pings.
	idlePing = 60 * time.Second
)

// ends names a flow. Those of pings have the identifier as the port they come from, and
// no other one.
type ends struct {
	from, to netip.AddrPort
	ping     bool
}

// flow is what a program sends from one port to another, and the answers.
type flow struct {
	ends
	h    *Handler
	site *netstack.Site
	out  chan []byte // from whoever receives packets, which does not wait
	end  context.CancelFunc

	quote  atomic.Pointer[netstack.Quote] // of the last packet that went out as it came
	last   atomic.Int64                   // Unix nanoseconds
	twoWay atomic.Bool
}

// UDP implements [netstack.SiteHandler].
func (h *Handler) UDP(d *netstack.Datagram) {
	f := h.flow(ends{from: d.From, to: d.To}, d.Site(), d.Quote)
	if f == nil {
		h.full.Add(1)
		return
	}
	f.take(bytes.Clone(d.Payload))
}

// Echo implements [netstack.SiteHandler].
func (h *Handler) Echo(e *netstack.Echo) {
	f := h.flow(ends{from: netip.AddrPortFrom(e.From, e.ID), to: netip.AddrPortFrom(e.To, 0), ping: true}, e.Site(), e.Quote)
	if f == nil {
		h.full.Add(1)
		return
	}
	// An error names the ping that it is about, so that programs can tell.
	q := e.Quote()
	f.quote.Store(&q)
	f.take(append(binary.BigEndian.AppendUint16(nil, e.Seq), e.Payload...))
}

// take passes a datagram on, or drops it.
func (f *flow) take(b []byte) {
	select {
	case f.out <- b:
	default:
		f.h.datagrams.Add(1)
	}
}

// Lost implements [netstack.SiteHandler]: the program has closed its socket.
func (h *Handler) Lost(l netstack.Lost) {
	h.mu.Lock()
	f := h.flows[ends{from: l.To, to: l.From}]
	h.mu.Unlock()
	if f != nil {
		f.end()
	}
}

// flow returns the flow of a packet; nil when there is no room.
func (h *Handler) flow(e ends, site *netstack.Site, quote func() netstack.Quote) *flow {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f := h.flows[e]; f != nil {
		return f
	}
	most, open := h.cfg.Flows, len(h.flows)-h.pingFlows
	if e.ping {
		most, open = h.cfg.Pings, h.pingFlows
	}
	if open >= most {
		return nil
	}
	ctx, end := context.WithCancel(context.Background())
	f := &flow{ends: e, h: h, site: site, out: make(chan []byte, maxWaiting), end: end}
	q := quote()
	f.quote.Store(&q)
	if !f.site.Go(func(site context.Context) { f.run(site, ctx) }) {
		end()
		return nil
	}
	h.flows[e] = f
	if e.ping {
		h.pingFlows++
		h.pings.Add(1)
	} else {
		h.opened.Add(1)
	}
	return f
}

// run carries the flow until it is idle, refused, or either context ends.
func (f *flow) run(site, ended context.Context) {
	stop := context.AfterFunc(site, f.end)
	defer stop()
	defer f.end()
	defer func() {
		f.forget()
		f.h.datagrams.Add(uint64(len(f.out))) // whoever has the flow still may add one more
	}()
	network := "udp"
	if f.ping {
		network = "ping"
	}
	far, err := f.h.dial(ended, network, f.to)
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

// forget makes room for another flow of these ends.
func (f *flow) forget() {
	f.h.mu.Lock()
	defer f.h.mu.Unlock()
	if f.h.flows[f.ends] != f {
		return
	}
	delete(f.h.flows, f.ends)
	if f.ping {
		f.h.pingFlows--
	}
}

// tell tells the program of an error. It may try again at once.
func (f *flow) tell(err error) {
	f.forget()
	if r := f.h.reason(err); r != 0 {
		f.site.Reject(*f.quote.Load(), r)
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
		rest := time.Until(time.Unix(0, f.last.Load()).Add(f.idle()))
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
		if f.answer(b[:n]) != nil {
			f.h.datagrams.Add(1)
		}
	}
}

// answer gives the program what came back.
func (f *flow) answer(b []byte) error {
	switch {
	case !f.ping:
		return f.site.WriteUDP(f.to, f.from, b)
	case len(b) < 2:
		return errShort
	default:
		return f.site.WriteEcho(f.to.Addr(), f.from.Addr(), f.from.Port(), binary.BigEndian.Uint16(b), b[2:])
	}
}

var errShort = errors.New("an answer to a ping without a sequence number")

// idle is how long the flow may rest.
func (f *flow) idle() time.Duration {
	if f.ping {
		return idlePing
	}
	return idle(f.to.Port(), f.twoWay.Load())
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
