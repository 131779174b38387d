package outbound

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"corax/dataplane"
	"corax/proxy/datagram"
	"corax/proxy/splice"
)

var (
	// ErrExists means that there is a map with that listener.
	ErrExists = errors.New("there is such a map")
	// ErrNoMap means that there is none.
	ErrNoMap = errors.New("there is no such map")
)

const (
	// maxMaps bounds the maps, maxStreams what is open through one of them.
	maxMaps    = 256
	maxStreams = 1024
	halfIdle   = time.Hour
	retryEvery = 5 * time.Second
)

// MapStatus is one map as it is now.
type MapStatus struct {
	Map
	Open    int    // connections, or flows
	Problem string // why it does not listen; empty: it does
}

// Maps are port maps, which can be changed while they run. Its methods may be called
// from several goroutines at once.
type Maps struct {
	dialer *Dialer
	log    *slog.Logger
	pool   splice.Pool

	buffers datagram.Pool

	in, out, refused, dropped, unheard atomic.Uint64

	mu      sync.Mutex
	m       map[string]*mapped
	ctx     context.Context // of Run; nil before
	workers sync.WaitGroup
}

// mapped is one map.
type mapped struct {
	Map
	open   atomic.Int64
	cancel context.CancelFunc // nil before Run
	ended  chan struct{}

	mu      sync.Mutex
	problem string
}

func (m *mapped) setProblem(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.problem = ""
	if err != nil {
		m.problem = err.Error()
	}
}

// NewMaps makes the maps that are there from the start.
func NewMaps(d *Dialer, log *slog.Logger, first []Map) (*Maps, error) {
	if d == nil {
		return nil, errors.New("outbound: no dialer")
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ms := &Maps{dialer: d, log: log, m: map[string]*mapped{}}
	for _, m := range first {
		if err := ms.Add(m); err != nil {
			return nil, err
		}
	}
	return ms, nil
}

// Run serves the maps until ctx ends, and joins what they started. A map that cannot
// listen is tried again every five seconds. It can be called once.
func (ms *Maps) Run(ctx context.Context) error {
	ms.mu.Lock()
	if ms.ctx != nil {
		ms.mu.Unlock()
		return errors.New("outbound: Run called twice")
	}
	ms.ctx = ctx
	for _, m := range ms.m {
		ms.startLocked(m)
	}
	ms.mu.Unlock()
	<-ctx.Done()
	ms.mu.Lock() // nothing starts after this
	defer ms.mu.Unlock()
	ms.workers.Wait()
	return nil
}

func (ms *Maps) startLocked(m *mapped) {
	if ms.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(ms.ctx)
	m.cancel, m.ended = cancel, make(chan struct{})
	ms.workers.Go(func() {
		defer close(m.ended)
		defer cancel()
		ms.serve(ctx, m)
	})
}

// Add makes a further map.
func (ms *Maps) Add(m Map) error {
	if m.Network != "tcp" && m.Network != "udp" || !m.Listen.IsValid() || m.Host == "" || m.Port == 0 {
		return fmt.Errorf("outbound: %s is no map", m)
	}
	ms.mu.Lock()
	defer ms.mu.Unlock()
	switch {
	case ms.m[m.Key()] != nil:
		return fmt.Errorf("outbound: %s: %w", m.Key(), ErrExists)
	case len(ms.m) >= maxMaps:
		return fmt.Errorf("outbound: %s: there are %d already", m.Key(), maxMaps)
	}
	n := &mapped{Map: m}
	ms.m[m.Key()] = n
	if ms.ctx != nil {
		ms.startLocked(n)
	}
	return nil
}

// Remove takes a map away, and breaks off what is open through it. The map is named
// by its network and listener.
func (ms *Maps) Remove(m Map) error {
	ms.mu.Lock()
	n := ms.m[m.Key()]
	delete(ms.m, m.Key())
	ms.mu.Unlock()
	if n == nil {
		return fmt.Errorf("outbound: %s: %w", m.Key(), ErrNoMap)
	}
	if n.cancel != nil {
		n.cancel()
		<-n.ended
	}
	return nil
}

// List returns the maps, sorted.
func (ms *Maps) List() []MapStatus {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	var out []MapStatus
	for _, m := range ms.m {
		m.mu.Lock()
		out = append(out, MapStatus{Map: m.Map, Open: int(m.open.Load()), Problem: m.problem})
		m.mu.Unlock()
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := &out[i], &out[j]
		return cmp.Or(strings.Compare(a.Network, b.Network), a.Listen.Compare(b.Listen)) < 0
	})
	return out
}

// Problems says which maps do not listen.
func (ms *Maps) Problems() []string {
	var out []string
	for _, m := range ms.List() {
		if m.Problem != "" {
			out = append(out, "--forward "+m.Map.String()+": "+m.Problem)
		}
	}
	return out
}

// Counters returns the counters of all maps.
func (ms *Maps) Counters() []dataplane.Counter {
	var open uint64
	for _, m := range ms.List() {
		open += uint64(m.Open)
	}
	return []dataplane.Counter{
		{Name: "portmap_open", Value: open},
		{Name: "portmap_bytes_total", Reason: "out", Value: ms.out.Load()},
		{Name: "portmap_bytes_total", Reason: "in", Value: ms.in.Load()},
		{Name: "portmap_drop_total", Reason: "full", Value: ms.refused.Load()},
		{Name: "portmap_drop_total", Reason: "refused", Value: ms.unheard.Load()},
		{Name: "portmap_drop_total", Reason: "datagram", Value: ms.dropped.Load()},
	}
}

// serve listens for one map until ctx ends.
func (ms *Maps) serve(ctx context.Context, m *mapped) {
	for ctx.Err() == nil {
		err := ms.listen(ctx, m)
		if ctx.Err() != nil {
			return
		}
		m.setProblem(err)
		ms.log.Warn("a port map does not listen", "map", m.String(), "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(retryEvery):
		}
	}
}

func (ms *Maps) listen(ctx context.Context, m *mapped) error {
	var lc net.ListenConfig
	if m.Network == "udp" {
		c, err := lc.ListenPacket(ctx, "udp", m.Listen.String())
		if err != nil {
			return err
		}
		m.setProblem(nil)
		return ms.serveUDP(ctx, m, c.(*net.UDPConn))
	}
	ln, err := lc.Listen(ctx, "tcp", m.Listen.String())
	if err != nil {
		return err
	}
	m.setProblem(nil)
	return Serve(ctx, ln, ms.dialer.most(), func() { ms.refused.Add(1) }, func(ctx context.Context, c net.Conn) { ms.stream(ctx, m, c) })
}

// hostOf is the address of a client.
func hostOf(a net.Addr) netip.Addr {
	if a, ok := a.(*net.TCPAddr); ok {
		return a.AddrPort().Addr()
	}
	return netip.Addr{}
}

// stream carries one connection. One that cannot be dialled is reset.
func (ms *Maps) stream(ctx context.Context, m *mapped, c net.Conn) {
	m.open.Add(1)
	defer m.open.Add(-1)
	far, err := ms.dialer.DialTCP(WithClient(ctx, hostOf(c.RemoteAddr())), m.Host, m.Port)
	if err != nil {
		ms.log.Debug("a port map cannot connect", "map", m.String(), "err", err)
		splice.Abort(c)
		return
	}
	_ = ms.pool.Join(ctx, c, far, splice.Config{
		Up: []*atomic.Uint64{&ms.out}, Down: []*atomic.Uint64{&ms.in}, HalfIdle: halfIdle,
	})
}
