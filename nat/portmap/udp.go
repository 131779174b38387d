package portmap

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

const (
	serverPort = 5351             // RFC 6887 section 19.1, RFC 6886 section 3
	askedFor   = 2 * time.Hour    // RFC 6886 section 3.3
	minLife    = 60 * time.Second // shorter grants are treated as this
	maxLife    = 24 * time.Hour
)

var errNoExternal = errors.New("the router has no external address")

func lifeOf(d time.Duration) time.Duration { return min(max(d, minLife), maxLife) }

// doPCP makes one PCP exchange. The error is the router's refusal or what kept
// an answer from coming.
func (c *client) doPCP(ctx context.Context, gateway netip.Addr, r pcpRequest) (a pcpAnswer, err error) {
	err = c.exchange(ctx, r.client, netip.AddrPortFrom(gateway, serverPort), appendPCP(nil, r), func(b []byte) dropReason {
		got, reason := parsePCP(b)
		if reason == dropNot {
			reason = got.answers(r)
		}
		if reason == dropNot {
			a = got
		}
		return reason
	})
	if err != nil {
		return pcpAnswer{}, err
	}
	return a, a.refusal()
}

// findPCP asks whether the gateway speaks PCP, and makes nothing.
func (c *client) findPCP(ctx context.Context, gateway netip.Addr) (pcpAnswer, error) {
	local, err := c.local(gateway)
	if err != nil {
		return pcpAnswer{}, err
	}
	a, err := c.doPCP(ctx, gateway, pcpRequest{opcode: pcpAnnounce, client: local})
	if e, ok := errors.AsType[*RefusedError](err); ok && e.Code == int(pcpUnsuppOpcode) {
		err = nil // speaks it, and knows no ANNOUNCE
	}
	return a, err
}

func (c *client) mapPCP(ctx context.Context, gateway netip.Addr, want ask) (grant, error) {
	local, err := c.local(gateway)
	if err != nil {
		return grant{}, err
	}
	a, err := c.doPCP(ctx, gateway, pcpRequest{
		opcode: pcpMap, lifetime: uint32(askedFor / time.Second), client: local,
		nonce: c.nonce, internal: want.internal, external: want.external,
	})
	if err != nil {
		return grant{}, err
	}
	g := grant{
		proto: PCP, gateway: gateway, internal: netip.AddrPortFrom(local, want.internal),
		external: netip.AddrPortFrom(a.external, a.externalPort),
		lifetime: lifeOf(a.lifetime), epoch: a.epoch,
	}
	if a.externalPort == 0 || a.external.IsUnspecified() || a.external.Is4() != local.Is4() {
		_ = c.unmapPCP(ctx, g) // useless to us, so it shall not stay
		return grant{}, errNoExternal
	}
	return g, nil
}

func (c *client) unmapPCP(ctx context.Context, g grant) error {
	_, err := c.doPCP(ctx, g.gateway, pcpRequest{
		opcode: pcpMap, client: g.internal.Addr(), nonce: c.nonce, internal: g.internal.Port(),
	})
	return err
}

// doPMP makes one NAT-PMP exchange; internal is the port for a mapping.
func (c *client) doPMP(ctx context.Context, gateway netip.Addr, req []byte, internal uint16) (a pmpAnswer, err error) {
	err = c.exchange(ctx, netip.Addr{}, netip.AddrPortFrom(gateway, serverPort), req, func(b []byte) dropReason {
		got, reason := parsePMP(b)
		if reason == dropNot {
			reason = got.answers(req[1], internal)
		}
		if reason == dropNot {
			a = got
		}
		return reason
	})
	if err != nil {
		return pmpAnswer{}, err
	}
	return a, a.refusal()
}

// findPMP asks for the external address.
func (c *client) findPMP(ctx context.Context, gateway netip.Addr) (pmpAnswer, error) {
	return c.doPMP(ctx, gateway, appendPMPExternal(nil), 0)
}

func (c *client) mapPMP(ctx context.Context, gateway netip.Addr, want ask) (grant, error) {
	local, err := c.local(gateway)
	if err != nil {
		return grant{}, err
	}
	ext, err := c.findPMP(ctx, gateway)
	if err != nil {
		return grant{}, err
	}
	if ext.address.IsUnspecified() {
		return grant{}, errNoExternal
	}
	a, err := c.doPMP(ctx, gateway, appendPMPMap(nil, want.internal, want.external, uint32(askedFor/time.Second)), want.internal)
	if err != nil {
		return grant{}, err
	}
	if a.external == 0 || a.lifetime == 0 {
		return grant{}, &RefusedError{NATPMP, int(pmpSuccess), "answered without a port", 0}
	}
	return grant{
		proto: NATPMP, gateway: gateway, internal: netip.AddrPortFrom(local, want.internal),
		external: netip.AddrPortFrom(ext.address, a.external),
		lifetime: lifeOf(a.lifetime), epoch: a.epoch,
	}, nil
}

func (c *client) unmapPMP(ctx context.Context, g grant) error {
	_, err := c.doPMP(ctx, g.gateway, appendPMPMap(nil, g.internal.Port(), 0, 0), g.internal.Port())
	return err
}
