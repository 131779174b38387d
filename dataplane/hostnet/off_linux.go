package hostnet

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// off gives every subnet up and takes the device down. It stays ours, so that
// Apply can bring it up again while the TUN is open.
func (a *applying) off(link netlink.Link) error {
	// The rules first: without them the table is out of use at once.
	a.did(a.syncRules(false))
	a.did(a.syncRoutes(context.Background(), nil))
	a.did(0, a.removeNFT())
	if link != nil && link.Attrs().RawFlags&unix.IFF_UP != 0 {
		if err := a.LinkSetDown(link); err != nil {
			a.did(0, fmt.Errorf("set %s down: %w", a.name, err))
		} else {
			a.did(1, nil)
		}
	}
	if a.changes > 0 {
		a.log.Info("host changed: tunnel mode is off", "changes", a.changes)
	}
	return errors.Join(a.errs...)
}
