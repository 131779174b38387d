package hostnet

import (
	"errors"
	"fmt"
	"net/netip"
)

// InnerConfig says how [OpenInner] sets a network namespace up.
type InnerConfig struct {
	// Name of the TUN, at most 15 bytes.
	Name string
	// MTU in bytes.
	MTU int
	// Addrs are the addresses of the namespace, at most one per family. Each family
	// that has one gets a default route into the TUN.
	Addrs []netip.Addr
}

func (c InnerConfig) check() error {
	for i, a := range c.Addrs {
		if !a.IsValid() || a.Zone() != "" || i > 1 || i == 1 && a.Is4() == c.Addrs[0].Is4() {
			return fmt.Errorf("addresses %v: at most one per family is wanted", c.Addrs)
		}
	}
	if len(c.Addrs) == 0 {
		return errors.New("no address")
	}
	return checkTUNMTU(c.MTU)
}
