package control

import (
	"net/netip"
	"slices"
	"time"

	"corax/dataplane"
	"corax/dataplane/key"
)

// hubKeepalive holds the NAT mapping of an edge towards a hub: load balancers
// forget a UDP flow after as little as 20 to 30 seconds.
const hubKeepalive = 20 * time.Second

// planPeers adds every other member as a peer that may use its overlay address.
// What it owns is added by planSubnets, once that is known.
func (p *planner) planPeers() {
	if p.member == nil {
		return
	}
	hubs := p.mesh.hubs()
	kept := p.keptHubs(hubs)
	p.cfg.Peers = slices.Grow(p.cfg.Peers, len(p.mesh.ofKey))
	for _, d := range p.mesh.domains {
		for _, e := range d.members {
			if e == p.member || e.key.IsZero() {
				continue
			}
			if e.key == p.local.PublicKey {
				p.report(d, e.keyField(), "node %s has the public key of this node, %s; it is left out", e.node, p.local.Node)
				continue
			}
			p.addPeer(e, kept[e], len(hubs) == 0)
		}
	}
}

// keptHubs returns the hubs of other domains with which this node, when it is
// no hub itself, keeps a session.
func (p *planner) keptHubs(hubs []*member) map[*member]bool {
	kept := map[*member]bool{}
	if p.member.reach.open {
		return kept
	}
	for _, e := range hubs {
		if len(kept) == maxHomeHubs {
			break
		}
		if e.domain != p.domain && e.key != p.local.PublicKey {
			kept[e] = true
		}
	}
	return kept
}

func (p *planner) addPeer(e *member, keep, hubless bool) {
	overlay := e.key.Overlay()
	peer := dataplane.Peer{
		Gateway: e.domain.name, Node: e.node, PublicKey: e.key, Preshared: p.local.Preshared,
		AllowedIPs: []netip.Prefix{netip.PrefixFrom(overlay, overlay.BitLen())},
		Hub:        e.hub(), Relay: e.relay(), Cost: e.domain.cost, SameDomain: e.domain == p.domain,
	}
	if peer.Hub {
		peer.TLSPort = e.entry.TLSPort()
	}
	lan := netip.AddrPort{}
	if n := e.domain.nodeNamed[e.node]; n != nil {
		lan = netip.AddrPortFrom(n.addr, e.lanPort(p.local))
	}
	switch {
	case e.domain == p.domain && lan.IsValid():
		peer.Endpoint = lan
	case e.reach.open:
		peer.Endpoint, peer.EndpointHost, peer.EndpointPort = e.reach.public, e.reach.host, e.reach.port
	case hubless && e.reach.public.IsValid():
		peer.Endpoint = e.reach.public
	case hubless && e.reach.host != "":
		peer.EndpointHost, peer.EndpointPort = e.reach.host, e.reach.port
	case hubless:
		peer.Endpoint = lan
	}
	if !e.other.IsZero() {
		overlay := e.other.Overlay()
		other := peer
		other.PublicKey, other.AllowedIPs = e.other, []netip.Prefix{netip.PrefixFrom(overlay, overlay.BitLen())}
		other.Other, other.Hub, other.Relay, other.TLSPort = true, false, false, 0
		p.cfg.Peers = append(p.cfg.Peers, other)
	}
	if keep {
		peer.Keepalive = hubKeepalive
	}
	p.cfg.Peers = append(p.cfg.Peers, peer)
}

// listedKeys are the keys that the objects have of this node.
func (p *planner) listedKeys() (listed, next key.Public) {
	if p.member != nil {
		listed, _ = p.member.entry.PublicKey()
		next, _ = p.member.entry.NextPublicKey()
	}
	return listed, next
}
