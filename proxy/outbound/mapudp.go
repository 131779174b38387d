package outbound

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

	"corax/proxy/datagram"
)

// udpFlows are the flows through one map: a socket for each program that sends.
type udpFlows struct {
	ms   *Maps
	m    *mapped
	conn *net.UDPConn

	mu sync.Mutex
	by map[netip.AddrPort]*udpFlow
}

// udpFlow is one of them. Its socket is opened beside the loop that reads from all
// programs, because a name may have to be looked up.
type udpFlow struct {
	last   atomic.Int64 // Unix nanoseconds
	twoWay atomic.Bool

	mu      sync.Mutex
	far     net.Conn // nil until it is open
	failed  bool     // to open
	waiting [][]byte // for that
}

// maxWaiting bounds the datagrams that wait for a flow to open.
const maxWaiting = 8

// serveUDP carries datagrams until ctx ends or the socket breaks.
func (ms *Maps) serveUDP(ctx context.Context, m *mapped, c *net.UDPConn) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	defer func() { _ = c.Close() }()
	f := &udpFlows{ms: ms, m: m, conn: c, by: map[netip.AddrPort]*udpFlow{}}
	b := make([]byte, datagram.Max)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return err
		}
		fl := f.get(from)
		if fl == nil {
			if f.m.open.Load() >= int64(ms.dialer.most()) {
				ms.refused.Add(1)
				continue
			}
			fl = f.add(from)
			wg.Go(func() {
				defer m.open.Add(-1)
				f.serve(ctx, from, fl)
			})
		}
		fl.last.Store(time.Now().UnixNano())
		if !fl.send(b[:n]) {
			ms.dropped.Add(1)
			continue
		}
		ms.out.Add(uint64(n))
	}
}

func (f *udpFlows) get(from netip.AddrPort) *udpFlow {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.by[from]
}

func (f *udpFlows) add(from netip.AddrPort) *udpFlow {
	fl := &udpFlow{}
	fl.last.Store(time.Now().UnixNano()) // before anybody looks
	f.m.open.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.by[from] = fl
	return fl
}

// send sends a datagram, or keeps it until the flow is open.
func (fl *udpFlow) send(b []byte) bool {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.far == nil {
		if fl.failed || len(fl.waiting) >= maxWaiting {
			return false
		}
		fl.waiting = append(fl.waiting, bytes.Clone(b))
		return true
	}
	_, err := fl.far.Write(b)
	return err == nil
}

// serve opens the socket of a flow, sends what waited, and passes on answers.
func (f *udpFlows) serve(ctx context.Context, from netip.AddrPort, fl *udpFlow) {
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.by, from)
	}()
	far, err := f.ms.dialer.DialUDP(WithClient(ctx, from.Addr()), f.m.Host, f.m.Port)
	if err != nil {
		f.ms.log.Debug("a port map cannot send", "map", f.m.String(), "err", err)
	}
	fl.mu.Lock()
	waiting := fl.waiting
	fl.waiting, fl.far, fl.failed = nil, far, err != nil
	for _, b := range waiting {
		if err == nil {
			_, e := far.Write(b)
			if e == nil {
				continue
			}
		}
		f.ms.dropped.Add(1)
	}
	fl.mu.Unlock()
	if err == nil {
		f.answers(ctx, from, fl, far)
	}
}

// answers passes on what comes back, until the flow is idle, its other end has no
// socket, or ctx ends.
func (f *udpFlows) answers(ctx context.Context, from netip.AddrPort, fl *udpFlow, far net.Conn) {
	defer func() { _ = far.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = far.Close() })
	defer stop()
	for {
		rest := time.Until(time.Unix(0, fl.last.Load()).Add(Idle(f.m.Port, fl.twoWay.Load())))
		if rest <= 0 {
			return
		}
		_ = far.SetReadDeadline(time.Now().Add(rest))
		err := f.answer(from, fl, far)
		if timeout, ok := errors.AsType[net.Error](err); errors.Is(err, os.ErrDeadlineExceeded) || ok && timeout.Timeout() {
			continue
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			f.ms.unheard.Add(1) // the next datagram opens another, perhaps to another endpoint
		}
		if err != nil {
			return
		}
	}
}

// answer passes on one datagram. A buffer is only held while there is one: most flows
// are at rest.
func (f *udpFlows) answer(from netip.AddrPort, fl *udpFlow, far net.Conn) error {
	if err := datagram.Wait(far); err != nil {
		return err
	}
	b := f.ms.buffers.Get()
	defer f.ms.buffers.Put(b)
	n, err := far.Read(b.Payload())
	if err != nil {
		return err
	}
	fl.twoWay.Store(true)
	fl.last.Store(time.Now().UnixNano())
	if _, err := f.conn.WriteToUDPAddrPort(b.Payload()[:n], from); err != nil {
		f.ms.dropped.Add(1)
		return nil
	}
	f.ms.in.Add(uint64(n))
	return nil
}
