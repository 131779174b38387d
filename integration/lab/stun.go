//go:build linux

package lab

import (
	"net/netip"
	"time"

	"corax/nat/stun"
)

// ServeSTUN answers plain STUN requests on an address of the host, as a public
// server does. It ends with the lab.
func (h *Host) ServeSTUN(at netip.AddrPort) error {
	c, err := h.ListenUDP(at)
	if err != nil {
		return err
	}
	go func() {
		var s stun.Server
		b := make([]byte, 1500)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if answer, ok := s.Answer(nil, b[:n], from, time.Now()); ok {
				_, _ = c.WriteToUDPAddrPort(answer, from)
			}
		}
	}()
	return nil
}
