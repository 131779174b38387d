package fabric

import (
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"corax/dataplane"
)

// Config holds what a Fabric needs for its whole life.
type Config struct {
	// Log gets changes of state, nothing per packet. Nil means discard.
	Log *slog.Logger
	// Now is the clock of the rate limit and of the neighbours' age. Nil
	// means time.Now.
	Now func() time.Time
}

// Outputs are the ways out of the fabric. A nil Sender says that this way does
// not exist: packets for it are dropped and answered with ICMP unreachable.
type Outputs struct {
	WireGuard, VXLAN, TUN, Netstack dataplane.Sender
}

// Origin says where a batch came from, and so which rules its sources obey.
type Origin uint8

// The origins. Each is also a way out, and ICMP errors return through it.
const (
	FromWireGuard Origin = iota
	FromVXLAN
	FromTUN
	FromNetstack
	origins int = iota
)

// String returns the name of the way as counters show it.
func (o Origin) String() string {
	switch o {
	case FromWireGuard:
		return "wireguard"
	case FromVXLAN:
		return "vxlan"
	case FromTUN:
		return "tun"
	case FromNetstack:
		return "netstack"
	default:
		return "unknown"
	}
}

// Fabric is the L3 forwarder of one node. Its methods may be called from
// several goroutines at once. It starts none and needs no Close.
type Fabric struct {
	log        *slog.Logger
	now        func() time.Time
	snap       atomic.Pointer[snapshot]
	ports      [origins]port
	scratch    sync.Pool
	limit      limiter
	neighbours neighbours
	counters   counters
}

// New returns a Fabric that drops everything until the first Apply.
func New(cfg Config) *Fabric {
	f := &Fabric{log: cfg.Log, now: cfg.Now}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	f.log = f.log.With("component", "fabric")
	if f.now == nil {
		f.now = time.Now
	}
	f.limit.init(f.now())
	for o := range f.ports {
		f.ports[o] = port{f: f, origin: Origin(o)}
	}
	f.scratch.New = newScratch
	f.snap.Store(&snapshot{mtu: dataplane.DefaultMTU})
	return f
}

// Apply replaces table, node addresses and outputs in one step: a batch sees
// the old state or the new one, never a mixture. Packets that were in an output
// when Apply was called may still leave through it afterwards.
//
// The error names every entry of cfg that cannot be used; all the others are in
// force. A route that cannot be used drops its prefix rather than leave it to a
// shorter one.
func (f *Fabric) Apply(cfg dataplane.Config, out Outputs) error {
	s, err := newSnapshot(cfg, out)
	f.snap.Store(s)
	f.log.Debug("table replaced", "routes", s.routes.Size(), "vteps", len(s.vteps), "mtu", s.mtu)
	return err
}

// From returns the Sender to give the packets that came from o. It may be used
// from several goroutines at once, each with its own batch. It consumes the
// batch before it returns and changes the packets' bytes.
func (f *Fabric) From(o Origin) dataplane.Sender {
	if int(o) >= len(f.ports) {
		return dataplane.SenderFunc(func([]dataplane.Packet) {})
	}
	return &f.ports[o]
}

// Lookup returns the route that a packet of netstack's to dst takes: the
// longest match, or for an overlay address of a plain node the way to its VTEP.
func (f *Fabric) Lookup(dst netip.Addr) (dataplane.Route, bool) {
	e := f.lookup(f.snap.Load(), FromNetstack, dst.Unmap())
	if e == nil {
		return dataplane.Route{}, false
	}
	r := e.route
	if !r.Prefix.IsValid() { // the way to a VTEP has no prefix of its own
		r.Prefix = netip.PrefixFrom(dst, dst.BitLen())
	}
	return r, true
}

// Counters returns the present value of every counter, in a fixed order. They
// never go back.
func (f *Fabric) Counters() []dataplane.Counter { return f.counters.list() }

// lookup returns the way to dst, nil when there is none. Only netstack talks to
// plain nodes' overlay addresses, so only for it they are looked up: a pod or a
// peer has no business there.
func (f *Fabric) lookup(s *snapshot, o Origin, dst netip.Addr) *entry {
	e, _ := s.routes.Lookup(dst)
	if o != FromNetstack || !isOverlay(dst) || e != nil && e.route.Prefix.IsSingleIP() {
		return e
	}
	if n := s.overlays[dst]; n != nil {
		return n
	}
	if vtep, ok := f.neighbours.lookup(dst, f.now()); ok && s.vteps[vtep] != nil {
		return s.vteps[vtep].way
	}
	return e
}
