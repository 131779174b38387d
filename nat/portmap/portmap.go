package portmap

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
)

// maxGateways bounds how many default routers of a family are asked.
const maxGateways = 4

// Config says what to map. Gateways and Port are required.
type Config struct {
	Log *slog.Logger // nil: discard
	// Gateways returns the default routers of both families, best first; a
	// link-local one with its zone. It is called by several goroutines, at most
	// a few times per try, and must not block for long.
	Gateways func() []netip.Addr
	// Port is our UDP port, the same in both families.
	Port uint16
	// Changed is called after Mapping or Pinhole changed. It must not block.
	// nil: nobody is told.
	Changed func()
	// Nonce is what PCP ties our mappings to. With the same nonce a restarted
	// agent takes its mappings over, without it the router refuses them until
	// they end. It is a secret of this node. Zero: random.
	Nonce [12]byte
	// Open runs f, which opens a socket, where sockets are to be opened (in
	// another network namespace). nil: here.
	Open func(f func() error) error
}

// Mapper keeps the mappings of one port: IPv4 at a NAT, and IPv6 at a firewall.
// Its methods may be called by any goroutine.
type Mapper struct {
	log    *slog.Logger
	client *client
	v4, v6 *lane
}

// New checks the configuration; it opens nothing.
func New(cfg Config) (*Mapper, error) {
	if cfg.Gateways == nil {
		return nil, errors.New("portmap: no function that tells the default routers")
	}
	if cfg.Port == 0 {
		return nil, errors.New("portmap: no port")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	if cfg.Open == nil {
		cfg.Open = func(f func() error) error { return f() }
	}
	for cfg.Nonce == [12]byte{} {
		_, _ = rand.Read(cfg.Nonce[:]) // never fails
	}
	c := &client{open: cfg.Open, nonce: cfg.Nonce}
	c.source6 = c.globalSource
	m := &Mapper{log: cfg.Log.With("component", "portmap"), client: c}
	m.v4 = newLane(m.log.With("family", "ipv4"), c, cfg, netip.Addr.Is4)
	m.v6 = newLane(m.log.With("family", "ipv6"), c, cfg, netip.Addr.Is6)
	return m, nil
}

// Run keeps the mappings while they are wanted, until ctx ends; then it deletes
// them, which may take some seconds when the router is slow.
func (m *Mapper) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { m.v4.run(ctx) })
	wg.Go(func() { m.v6.run(ctx) })
	wg.Go(func() { m.listen(ctx) })
	wg.Wait()
	return nil
}

// Want says whether mappings are wanted. At first they are not.
func (m *Mapper) Want(on bool) {
	m.v4.want(on)
	m.v6.want(on)
}

// Poke says that the network may have changed (a default route, a path that
// died): what we have is checked, and what failed is tried again, both within
// five seconds.
func (m *Mapper) Poke() {
	m.v4.poke()
	m.v6.poke()
}

// Mapping returns the external IPv4 address and port that lead to us, and how
// they were had. It reports false when there is none that peers elsewhere could
// use.
func (m *Mapper) Mapping() (netip.AddrPort, Protocol, bool) { return m.v4.offered() }

// Pinhole returns our IPv6 address and the port that the router lets in.
func (m *Mapper) Pinhole() (netip.AddrPort, bool) {
	a, _, ok := m.v6.offered()
	return a, ok
}

// Status returns a snapshot.
func (m *Mapper) Status() Status {
	return Status{IPv4: *m.v4.view.Load(), IPv6: *m.v6.view.Load()}
}

// Counters returns the counters, which only grow.
func (m *Mapper) Counters() []Counter {
	s := m.Status()
	return append(m.client.drops.counters(),
		Counter{"nat_portmap_router_reboot_total", "ipv4", s.IPv4.Reboots},
		Counter{"nat_portmap_router_reboot_total", "ipv6", s.IPv6.Reboots})
}
