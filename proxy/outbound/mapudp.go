package outbound

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// maxDatagram is the largest payload, in bytes.
const maxDatagram = 65535

// udpFlows are the flows through one map: a socket for each program that sends.
type udpFlows struct {
	ms   *Maps
	m    *mapped
	conn *net.UDPConn

	mu sync.Mutex
	by map[netip.AddrPort]*udpFlow
}

type udpFlow struct {
	far    net.Conn
	last   atomic.Int64 // Unix nanoseconds
	twoWay atomic.Bool
}

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
	b := make([]byte, maxDatagram)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return err
		}
		fl := f.get(from)
		if fl == nil {
			if fl = f.open(ctx, from, &wg); fl == nil {
				continue
			}
		}
		fl.last.Store(time.Now().UnixNano())
		if _, err := fl.far.Write(b[:n]); err != nil {
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

// open makes a flow. A name is looked up here, and what others send meanwhile waits
// in the socket.
func (f *udpFlows) open(ctx context.Context, from netip.AddrPort, wg *sync.WaitGroup) *udpFlow {
	if f.m.open.Load() >= maxStreams {
		f.ms.refused.Add(1)
		return nil
	}
	far, err := f.ms.dialer.DialUDP(ctx, f.m.Host, f.m.Port)
	if err != nil {
		f.ms.dropped.Add(1)
		return nil
	}
	fl := &udpFlow{far: far}
	fl.last.Store(time.Now().UnixNano())
	f.mu.Lock()
	f.by[from] = fl
	f.mu.Unlock()
	f.m.open.Add(1)
	wg.Go(func() {
		defer f.m.open.Add(-1)
		f.answers(ctx, from, fl)
	})
	return fl
}

// answers passes on what comes back, until the flow is idle or ctx ends.
func (f *udpFlows) answers(ctx context.Context, from netip.AddrPort, fl *udpFlow) {
	defer func() {
		f.mu.Lock()
		delete(f.by, from)
		f.mu.Unlock()
		_ = fl.far.Close()
	}()
	stop := context.AfterFunc(ctx, func() { _ = fl.far.Close() })
	defer stop()
	b := make([]byte, maxDatagram)
	for {
		rest := time.Until(time.Unix(0, fl.last.Load()).Add(Idle(f.m.Port, fl.twoWay.Load())))
		if rest <= 0 {
			return
		}
		_ = fl.far.SetReadDeadline(time.Now().Add(rest))
		n, err := fl.far.Read(b)
		if timeout, ok := errors.AsType[net.Error](err); errors.Is(err, os.ErrDeadlineExceeded) || ok && timeout.Timeout() {
			continue
		}
		if err != nil {
			return
		}
		fl.twoWay.Store(true)
		fl.last.Store(time.Now().UnixNano())
		if _, err := f.conn.WriteToUDPAddrPort(b[:n], from); err != nil {
			f.ms.dropped.Add(1)
			continue
		}
		f.ms.in.Add(uint64(n))
	}
}
