package v1beta1

import (
	"fmt"
	"net/netip"
	"strconv"

	"corax/dataplane/key"
)

// PublicKey returns the WireGuard public key of the endpoint. Without one it is
// zero and the error nil.
func (e *Endpoint) PublicKey() (key.Public, error) { return e.configKey(ConfigPublicKey) }

// NextPublicKey returns the key that the node will use next, as PublicKey does.
func (e *Endpoint) NextPublicKey() (key.Public, error) { return e.configKey(ConfigNextPublicKey) }

func (e *Endpoint) configKey(name string) (key.Public, error) {
	s := e.Config[name]
	if s == "" {
		return key.Public{}, nil
	}
	return key.ParsePublic(s)
}

// PublicAddr returns publicIP; zero, and no error, when it is empty.
func (e *Endpoint) PublicAddr() (netip.Addr, error) {
	if e.PublicIP == "" {
		return netip.Addr{}, nil
	}
	return ParseAddr(e.PublicIP)
}

// PublicHost returns the DNS name to use when publicIP is empty; empty, and no
// error, when there is none.
func (e *Endpoint) PublicHost() (string, error) {
	s := e.Config[ConfigPublicHost]
	if s == "" {
		return "", nil
	}
	if err := CheckHost(s); err != nil {
		return "", err
	}
	return s, nil
}

// ExposedPort returns the UDP port at which the endpoint's tunnel is reached
// from other domains: publicPort, else, of a tunnel endpoint, port, else
// [PortTunnel]. Values that are no port count as absent.
func (e *Endpoint) ExposedPort() uint16 {
	if isPort(e.PublicPort) {
		return uint16(e.PublicPort)
	}
	if e.Type == TypeTunnel && isPort(e.Port) {
		return uint16(e.Port)
	}
	return PortTunnel
}

// TLSPort returns the TCP port of the endpoint's tunnel fallback, else
// [PortTLSFallback]. A value that is no port counts as absent.
func (e *Endpoint) TLSPort() uint16 {
	if p, err := ParsePort(e.Config[ConfigTLSPort]); err == nil {
		return p
	}
	return PortTLSFallback
}

// Cost returns the configured cost of the Gateway in milliseconds; zero without one.
func (g *Gateway) Cost() (int, error) {
	s := g.Metadata.Annotations[AnnotationCost]
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > MaxCost {
		return 0, fmt.Errorf("not a number from 0 to %d: %q", MaxCost, clip(s))
	}
	return n, nil
}

// Epoch returns the count of changes of the active endpoints; zero without one.
func (g *Gateway) Epoch() (uint64, error) {
	s := g.Metadata.Annotations[AnnotationEpoch]
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("not a count: %q", clip(s))
	}
	return n, nil
}

// Routed reports whether the domain's subnets are left to the kernel.
func (g *Gateway) Routed() bool { return g.Metadata.Annotations[AnnotationRouted] == "true" }

// Relay reports whether the domain's hubs may relay for others.
func (g *Gateway) Relay() bool { return g.Metadata.Annotations[AnnotationRelay] != "false" }

// Exposed reports whether the Gateway has a known exposeType.
func (g *Gateway) Exposed() bool {
	return g.Spec.ExposeType == ExposePublicIP || g.Spec.ExposeType == ExposeLoadBalancer
}

func isPort(n int) bool { return n >= 1 && n <= 65535 }
