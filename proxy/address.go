package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"corax/dataplane/key"
)

// metadataAWS has the services of an AWS host: ::254 its metadata, ::23 credentials
// of pods.
var metadataAWS = netip.MustParsePrefix("fd00:ec2::/32")

// CheckAddr says why an address is not dialled in the name of a node. An object
// that names it may have been written by a node that wants to look elsewhere: at
// the services of the host itself, or at the metadata of a cloud.
func CheckAddr(a netip.Addr) error {
	a = a.Unmap()
	switch {
	case !a.IsValid():
		return fmt.Errorf("no address")
	case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a.IsLinkLocalUnicast(), a.Zone() != "", key.OverlayPrefix.Contains(a):
		return fmt.Errorf("%s is not an address of a node", a)
	}
	switch a.String() {
	case "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd20:ce::254":
		return fmt.Errorf("%s is a metadata address", a)
	}
	if metadataAWS.Contains(a) {
		return fmt.Errorf("%s is a metadata address", a)
	}
	if a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return fmt.Errorf("%s is not an address of a node", a)
	}
	return nil
}

// Keepalive is how connections to nodes and from clients notice that their other
// end is gone: within a minute.
func Keepalive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}
}

// Source is what limits of one address are counted by: an IPv4 address, or the /64
// of an IPv6 address, since its owner has all of that. An address of the overlay is
// one of its own: WireGuard has proven it.
func Source(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if !a.Is6() || key.OverlayPrefix.Contains(a) {
		return a
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}
