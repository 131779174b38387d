package vxlan

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"

	"corax/dataplane"
	"corax/dataplane/internal/udpbatch"
)

// Config is what [New] needs. Addr and Receive are required.
type Config struct {
	// Log gets changes of the VTEPs; nil means no log.
	Log *slog.Logger
	// Addr is this node's underlay address, where the socket is bound. Its
	// family is the underlay's.
	Addr netip.Addr
	// Port is the UDP port; zero means DefaultPort.
	Port uint16
	// VNI is the segment. The zero VNI is a valid one: pass DefaultVNI for the
	// segment of Corax.
	VNI VNI
	// Overlay is this node's overlay address: packets to it may come from any
	// overlay address. The zero Addr accepts none.
	Overlay netip.Addr
	// MTU is the link face's, in bytes; zero means dataplane.DefaultMTU.
	MTU int
	// SocketBuffer is what the kernel may queue for the socket each way, in bytes;
	// zero means 4 MiB. Slots bounds the buffers of 64 KiB that it is read into,
	// zero means 16.
	SocketBuffer, Slots int
	// Receive takes the packets that came in. It is called by one goroutine.
	Receive dataplane.Sender
}

// Endpoint is a VXLAN tunnel endpoint. Its methods may be called from several
// goroutines at once. Until [Endpoint.SetVTEPs] it takes and sends nothing.
type Endpoint struct {
	log     *slog.Logger
	addr    netip.Addr
	segment netip.Addr
	mac     MAC
	vni     VNI
	overlay netip.Addr
	receive dataplane.Sender
	conn    *udpbatch.Conn
	link    *Link
	limit   *rate.Limiter // frames to the stack
	batches sync.Pool     // of *sendBatch

	table   atomic.Pointer[vtepTable]
	tableMu sync.Mutex // for replacing table
	learned fdb
	count   counters
}

var _ dataplane.Sender = (*Endpoint)(nil)

// segmentRate and segmentBurst bound the frames a second that the receive loop
// carries into the stack: ARP, ND and pings of the segment need far less.
const (
	segmentRate  = 1000
	segmentBurst = 256
)

// New binds the socket. The Endpoint owns it: [Endpoint.Run] closes it, or
// [Endpoint.Close] when Run is never called.
func New(cfg Config) (*Endpoint, error) {
	addr := cfg.Addr.Unmap()
	switch {
	case !addr.IsValid() || addr.IsUnspecified():
		return nil, errors.New("vxlan: no underlay address")
	case cfg.Receive == nil:
		return nil, errors.New("vxlan: nobody receives")
	}
	if err := cfg.VNI.check(); err != nil {
		return nil, fmt.Errorf("vxlan: %w", err)
	}
	port := cfg.Port
	if port == 0 {
		port = DefaultPort
	}
	conn, err := udpbatch.Listen(udpbatch.Config{
		Addr: netip.AddrPortFrom(addr, port), NoCheck6: true,
		RecvBuffer: cfg.SocketBuffer, SendBuffer: cfg.SocketBuffer, Slots: cfg.Slots,
	})
	if err != nil {
		return nil, fmt.Errorf("vxlan: %w", err)
	}
	e := &Endpoint{
		log:     cfg.Log,
		addr:    addr.WithZone(""),
		segment: SegmentAddr(addr),
		mac:     NodeMAC(addr),
		vni:     cfg.VNI,
		overlay: cfg.Overlay,
		receive: cfg.Receive,
		conn:    conn,
		limit:   rate.NewLimiter(segmentRate, segmentBurst),
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.link = newLink(e, cfg.MTU)
	e.batches.New = func() any { return new(sendBatch) }
	e.table.Store(&vtepTable{})
	return e, nil
}

// Run receives until ctx is done, then closes the socket and returns nil. It may
// be called once.
func (e *Endpoint) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { e.closeOnDone(ctx) })
	err := e.receiveLoop()
	cancel()
	wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("vxlan: receive on %s: %w", e.conn.LocalAddr(), err)
}

func (e *Endpoint) closeOnDone(ctx context.Context) {
	<-ctx.Done()
	_ = e.conn.Close()
}

// Close closes the socket. Only an Endpoint whose Run is not called needs it.
func (e *Endpoint) Close() error { return e.conn.Close() }

// SetVTEPs replaces the nodes that this one speaks with. A VTEP that stays keeps
// its statistics; what was learned from one that goes is forgotten. Entries that
// cannot be used are left out, and the result has one error for each; of two
// with one address on the segment only the first is on it, and both carry
// packets. The slice is not kept.
func (e *Endpoint) SetVTEPs(vteps []dataplane.VTEP) []error {
	e.tableMu.Lock()
	defer e.tableMu.Unlock()
	old := e.table.Load()
	t, unusable := newVTEPTable(e.addr, e.vni, vteps, old)
	e.table.Store(t)
	e.learned.keep(t)
	if len(t.sorted) != len(old.sorted) {
		e.log.Info("vteps changed", "count", len(t.sorted))
	}
	return unusable
}

// Link returns the link face: always the same one.
func (e *Endpoint) Link() *Link { return e.link }

// LocalAddr returns the bound underlay address.
func (e *Endpoint) LocalAddr() netip.AddrPort { return e.conn.LocalAddr() }

// Status returns a snapshot of every VTEP, by address. Bytes are those of inner
// packets; sent means given to the socket.
func (e *Endpoint) Status() []dataplane.VTEPStatus { return e.table.Load().status() }

// Counters returns the present values of all counters.
func (e *Endpoint) Counters() []dataplane.Counter {
	out := e.count.list()
	out = append(out,
		dataplane.Counter{Name: "vxlan_learned_macs", Value: uint64(e.learned.len())},
		dataplane.Counter{Name: "vxlan_learn_drop_total", Reason: "full", Value: e.learned.full.Load()})
	return append(out, e.conn.Counters("vxlan_socket")...)
}
