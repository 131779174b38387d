package wg

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"corax/dataplane"
	"corax/dataplane/key"
)

// checkPeers returns the peers that can be applied, prefixes masked, and what
// is wrong with the others. A prefix belongs to the first peer that has it.
func checkPeers(self key.Public, peers []dataplane.Peer) ([]dataplane.Peer, error) {
	var errs []error
	out := make([]dataplane.Peer, 0, len(peers))
	keys := make(map[key.Public]bool, len(peers))
	taken := make(map[netip.Prefix]bool)
	for _, p := range peers {
		switch {
		case p.PublicKey.IsZero():
			errs = append(errs, fmt.Errorf("peer %s/%s has no public key", p.Gateway, p.Node))
			continue
		case p.PublicKey == self:
			errs = append(errs, fmt.Errorf("peer %s/%s has our own public key", p.Gateway, p.Node))
			continue
		case keys[p.PublicKey]:
			errs = append(errs, fmt.Errorf("peer %s/%s has the public key of another peer", p.Gateway, p.Node))
			continue
		}
		keys[p.PublicKey] = true
		allowed := make([]netip.Prefix, 0, len(p.AllowedIPs))
		for _, x := range p.AllowedIPs {
			m := x.Masked()
			switch {
			case !m.IsValid() || m.Addr().Is4In6():
				errs = append(errs, fmt.Errorf("peer %s/%s: allowed IPs: not a prefix: %s", p.Gateway, p.Node, x))
			case taken[m]:
				errs = append(errs, fmt.Errorf("peer %s/%s: allowed IPs: %s is taken", p.Gateway, p.Node, m))
			default:
				taken[m] = true
				allowed = append(allowed, m)
			}
		}
		p.AllowedIPs = allowed
		out = append(out, p)
	}
	return out, errors.Join(errs...)
}

// render writes the user API's set request that makes old into now, both as
// checkPeers returns them. A peer that did not change does not appear. New
// owners of prefixes come before old ones lose them, because an insert moves a
// prefix in one step: no prefix is without peer on its way. The result holds
// pre-shared keys.
func render(old, now []dataplane.Peer) []byte {
	before := make(map[key.Public]*dataplane.Peer, len(old))
	for i := range old {
		before[old[i].PublicKey] = &old[i]
	}
	owned := make(map[netip.Prefix]bool)
	keep := make(map[key.Public]bool, len(now))
	var b []byte
	for i := range now {
		p := &now[i]
		keep[p.PublicKey] = true
		for _, x := range p.AllowedIPs {
			owned[x] = true
		}
		if o := before[p.PublicKey]; o == nil {
			b = appendNew(b, p)
		} else {
			b = appendChanged(b, o, p)
		}
	}
	for i := range now {
		if o := before[now[i].PublicKey]; o != nil {
			b = appendLost(b, o, &now[i], owned)
		}
	}
	for i := range old {
		if !keep[old[i].PublicKey] {
			b = appendPeer(b, old[i].PublicKey)
			b = append(b, "update_only=true\nremove=true\n"...)
		}
	}
	return b
}

func appendNew(b []byte, p *dataplane.Peer) []byte {
	b = appendPeer(b, p.PublicKey)
	if !p.Preshared.IsZero() {
		b = appendPreshared(b, p.Preshared)
	}
	b = append(b, "endpoint="+peerPrefix...)
	b = hex.AppendEncode(b, p.PublicKey[:])
	b = append(b, '\n')
	b = appendKeepalive(b, p.Keepalive)
	b = append(b, "replace_allowed_ips=true\n"...)
	for _, x := range p.AllowedIPs {
		b = appendAllowed(b, "", x)
	}
	return b
}

// appendChanged writes what p has and o has not.
func appendChanged(b []byte, o, p *dataplane.Peer) []byte {
	empty := len(b)
	b = appendPeer(b, p.PublicKey)
	b = append(b, "update_only=true\n"...)
	head := len(b)
	if o.Preshared != p.Preshared {
		b = appendPreshared(b, p.Preshared)
	}
	for _, x := range p.AllowedIPs {
		if !slices.Contains(o.AllowedIPs, x) {
			b = appendAllowed(b, "", x)
		}
	}
	if len(b) == head && keepaliveSeconds(o.Keepalive) == keepaliveSeconds(p.Keepalive) {
		return b[:empty]
	}
	return appendKeepalive(b, p.Keepalive)
}

// appendLost writes the prefixes that o had, and nobody has now.
func appendLost(b []byte, o, p *dataplane.Peer, owned map[netip.Prefix]bool) []byte {
	head := true
	for _, x := range o.AllowedIPs {
		if owned[x] {
			continue
		}
		if head {
			b = appendPeer(b, p.PublicKey)
			b = append(b, "update_only=true\n"...)
			b = appendKeepalive(b, p.Keepalive)
			head = false
		}
		b = appendAllowed(b, "-", x)
	}
	return b
}

func appendPeer(b []byte, k key.Public) []byte {
	b = append(b, "public_key="...)
	b = hex.AppendEncode(b, k[:])
	return append(b, '\n')
}

func appendPreshared(b []byte, k key.Preshared) []byte {
	raw := k.Bytes()
	b = append(b, "preshared_key="...)
	b = hex.AppendEncode(b, raw[:])
	return append(b, '\n')
}

// appendKeepalive is called for every peer that is written: without this line
// wireguard-go takes the answer to "was it turned on?" from the peer before, and
// sends a first keepalive, with a handshake, to a peer that nobody talks to.
func appendKeepalive(b []byte, d time.Duration) []byte {
	b = append(b, "persistent_keepalive_interval="...)
	b = strconv.AppendInt(b, keepaliveSeconds(d), 10)
	return append(b, '\n')
}

func appendAllowed(b []byte, sign string, x netip.Prefix) []byte {
	b = append(b, "allowed_ip="+sign...)
	b = x.AppendTo(b)
	return append(b, '\n')
}

// keepaliveSeconds rounds up: the user API knows whole seconds, and 0 is off.
func keepaliveSeconds(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return min(int64((d+time.Second-1)/time.Second), math.MaxUint16)
}
