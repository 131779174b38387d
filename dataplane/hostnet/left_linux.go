package hostnet

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Hold is [Host.Apply] for an agent without a device. It installs nothing where
// no agent with a device was, and where a dead one left its rule it keeps the
// remote subnets closed: packets for them are refused, and neither wait in a
// device that nobody reads nor leave in the clear. What a living agent has is
// not touched.
func (h *Host) Hold(ctx context.Context, s State) ([]Problem, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrClosed
	}
	c, err := openRtnl()
	if err != nil {
		return nil, fmt.Errorf("hostnet: hold: %w", err)
	}
	defer c.close()
	a := applying{Host: h, rtnl: c, state: s}
	if err := a.hold(ctx); err != nil {
		return a.problems, fmt.Errorf("hostnet: hold: %w", err)
	}
	return a.problems, nil
}

func (a *applying) hold(ctx context.Context) error {
	link, err := a.deviceByName(a.name)
	if err != nil {
		return err
	}
	if inUse(link) {
		a.problem(Problem{Name: "device_in_use", What: "another process has the device " + a.name + ": its routes are left as they are"})
		return nil
	}
	installed, err := a.installed()
	if err != nil || !installed {
		return err
	}
	if a.state.Off {
		return a.off(link)
	}
	a.did(a.syncRoutes(ctx, wantRoutes(a.routable(), [2]int{}, 0, [2]source{})))
	a.did(a.syncRules(true))
	if a.changes > 0 {
		a.log.Info("host changed", "changes", a.changes, "unreachable", len(a.state.Routes))
	}
	return errors.Join(a.errs...)
}

// Clear removes what a dead agent left, its device too: what [Host.Close] does,
// for an agent without a device. It fails with ErrInUse, and removes nothing,
// when another process has the device.
func (h *Host) Clear() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	c, err := openRtnl()
	if err != nil {
		return fmt.Errorf("hostnet: clear: %w", err)
	}
	defer c.close()
	link, err := c.deviceByName(h.name)
	if err != nil {
		return fmt.Errorf("hostnet: clear: %w", err)
	}
	if inUse(link) {
		return fmt.Errorf("hostnet: clear: %s: %w", h.name, ErrInUse)
	}
	removed, err := h.removeAll(c)
	if removed > 0 {
		h.log.Info("removed what an agent with a TUN left", "changes", removed)
	}
	if err != nil {
		return fmt.Errorf("hostnet: clear: %w", err)
	}
	return nil
}

// removeAll removes everything of ours and returns how many routes and rules
// there were.
func (h *Host) removeAll(c *rtnl) (removed int, err error) {
	// The rules first: without them the table is out of use at once.
	rules, err1 := c.syncRules(false)
	routes, err2 := c.syncRoutes(context.Background(), nil)
	removed = rules + routes
	nft := h.removeNFT()
	if removed == 0 && errors.Is(nft, unix.EPERM) {
		// An agent without rights sees no tables. It has installed none, and
		// nothing shows that somebody else has.
		nft = nil
	}
	return removed, errors.Join(err1, err2, nft, c.removeDevice(h.name))
}

// inUse reports whether a process is attached to the device: only then has a TUN
// a carrier.
func inUse(l netlink.Link) bool {
	return l != nil && l.Attrs().RawFlags&unix.IFF_LOWER_UP != 0
}
