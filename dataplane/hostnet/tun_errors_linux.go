package hostnet

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// explainOpen says why /dev/net/tun cannot be opened, and what to do.
func explainOpen(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("no %s: load the module tun, or give the container the device: %w", tunPath, err)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("the kernel has no TUN: load the module tun: %w", err)
	case errors.Is(err, unix.EPERM):
		// Mode bits give EACCES; EPERM comes from the device cgroup.
		return fmt.Errorf("TUN refused by the device cgroup: allow the container character device 10:200: %w", err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("no permission to open %s: %w", tunPath, err)
	default:
		return fmt.Errorf("open %s: %w", tunPath, err)
	}
}

// explainPermission names the capability behind EPERM.
func explainPermission(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("no permission for the TUN: needs CAP_NET_ADMIN: %w", err)
	}
	return err
}

// explainAttach says why TUNSETIFF failed.
func (t *TUN) explainAttach(err error) error {
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("another agent is attached to it: %w", err)
	case errors.Is(err, unix.EINVAL):
		if kind := t.foreignKind(); kind != "" {
			return fmt.Errorf("the name is taken by a %s device; delete it or choose another name: %w", kind, err)
		}
	}
	return explainPermission(err)
}

// foreignKind names the kind of a device that has our name and is not the kind
// of TUN that we make; "" when there is none.
func (t *TUN) foreignKind() string {
	link, err := t.nl.LinkByName(t.name)
	if err != nil {
		return ""
	}
	tun, ok := link.(*netlink.Tuntap)
	switch {
	case !ok:
		return link.Type()
	case tun.Mode != netlink.TUNTAP_MODE_TUN:
		return "TAP"
	case tun.Flags&netlink.TUNTAP_MULTI_QUEUE != 0:
		return "multi-queue TUN"
	default:
		return ""
	}
}
