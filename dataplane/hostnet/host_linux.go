package hostnet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Host makes the host as the plan wants it, and undoes that. It holds no file
// descriptor between calls; its methods may be called from several goroutines.
type Host struct {
	log      *slog.Logger
	name     string
	override [2]netip.Addr
	takeOver bool
	dialNFT  func() (*nftables.Conn, error)

	mu     sync.Mutex // held during the whole of Apply and Close
	closed bool

	sourceMu sync.Mutex
	source   [2]source
}

// New checks that no Raven agent is on this host, or removes what it left when
// cfg.TakeOver is set. It fails with ErrRaven otherwise. Nothing of ours is
// installed before the first Apply.
func New(cfg Config) (*Host, error) {
	cfg.Name = cmp.Or(cfg.Name, DefaultName)
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	h := &Host{
		log:      cfg.Log.With("component", "hostnet"),
		name:     cfg.Name,
		takeOver: cfg.TakeOver,
		dialNFT:  func() (*nftables.Conn, error) { return nftables.New() },
	}
	for _, a := range cfg.HostSource {
		h.override[familyIndex(a)] = a
	}
	for i := range h.source {
		h.source[i].why = "not chosen yet"
	}
	c, err := openRtnl()
	if err != nil {
		return nil, fmt.Errorf("hostnet: %w", err)
	}
	defer c.close()
	found, err := findRaven(c)
	if err != nil {
		return nil, fmt.Errorf("hostnet: look for a Raven agent: %w", err)
	}
	if found.empty() {
		return h, nil
	}
	if !cfg.TakeOver {
		return nil, fmt.Errorf("hostnet: %w: %v", ErrRaven, found)
	}
	if err := found.remove(c, h.dialNFT); err != nil {
		return nil, fmt.Errorf("hostnet: take over from Raven: %w", err)
	}
	h.log.Info("took over from raven", "removed", found.String())
	return h, nil
}

// Apply makes the host as s says and returns what keeps it from working. It
// reads what is there and writes only differences, so it is safe to call on
// every change, on a timer and on every event of Watch. One part that fails
// does not stop the others; err joins what failed.
//
// Call it only once the plan is known: an empty state gives every remote subnet
// up, and with it what a crashed agent left to keep packets in.
//
// Without the device nothing is added, but what is there stays: its unreachable
// routes keep packets from leaving in the clear until the device is back. Call
// Close to give the subnets up.
func (h *Host) Apply(ctx context.Context, s State) ([]Problem, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("hostnet: apply: %w", err)
	}
	c, err := openRtnl()
	if err != nil {
		return nil, fmt.Errorf("hostnet: apply: %w", err)
	}
	defer c.close()
	a := applying{Host: h, rtnl: c, subnets: splitFamilies(s.Subnets), state: s}
	if err := a.run(ctx); err != nil {
		return a.problems, fmt.Errorf("hostnet: apply: %w", err)
	}
	return a.problems, nil
}

// HostSource returns the address that host programs get as source on packets to
// other domains, as the last Apply chose it, and how; without one, the zero
// Addr and why there is none.
func (h *Host) HostSource(v6 bool) (addr netip.Addr, why string) {
	h.sourceMu.Lock()
	defer h.sourceMu.Unlock()
	s := h.source[0]
	if v6 {
		s = h.source[1]
	}
	return s.addr, s.why
}

// Name returns the name of the device.
func (h *Host) Name() string { return h.name }

// Close removes everything of ours from the host, the device too, whoever
// installed it: this Host or one before it. What is not there is no error. A
// second call does nothing.
func (h *Host) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	h.closed = true
	c, err := openRtnl()
	if err != nil {
		return fmt.Errorf("hostnet: close: %w", err)
	}
	defer c.close()
	if _, err := h.removeAll(c); err != nil {
		return fmt.Errorf("hostnet: close: %w", err)
	}
	return nil
}

// removeNFT removes our table and our rules in foreign chains. A kernel without
// nftables has neither.
func (h *Host) removeNFT() error {
	c, err := h.dialNFT()
	if err == nil {
		_, err = hasTable(c)
	}
	if noNFTables(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove our nftables rules: %w", err)
	}
	return errors.Join(removeNAT(c), removeForward(c, h.name))
}

// noNFTables reports whether an error says that the kernel has no nftables: no
// netfilter netlink, or, as EINVAL, no such part of it.
func noNFTables(err error) bool {
	for _, e := range []error{unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.EOPNOTSUPP, unix.EINVAL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// removeDevice deletes our persistent TUN. A link of another kind under that
// name is not ours.
func (c *rtnl) removeDevice(name string) error {
	l, err := c.deviceByName(name)
	if err != nil || l == nil {
		return err
	}
	if _, ok := l.(*netlink.Tuntap); !ok {
		return nil
	}
	if err := c.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}
