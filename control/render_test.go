package control_test

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"corax/control"
	"corax/dataplane"
)

// render writes a plan as text, a line for each thing, in the plan's order but
// for the overlay addresses and keys, which stand under their names.
func render(d control.Desired, names *keyNames) string {
	b := new(strings.Builder)
	self := d.Config.Self
	fmt.Fprintf(b, "role %s gateway=%q node=%s ip=%s overlay=%s mtu=%d tunnel=%t",
		d.Role, d.Gateway, self.Node, self.NodeIP, self.Overlay, self.MTU, self.Tunnel)
	renderHub(b, self.Hub, self.Relay, self.Cost)
	b.WriteByte('\n')
	for _, s := range self.Subnets {
		fmt.Fprintf(b, "subnet %s\n", s)
	}
	if c := d.Domain; c != nil && c.Claim != nil {
		fmt.Fprintf(b, "claim epoch=%d from=%s active=%s instead of %s epoch=%d\n",
			c.Claim.Epoch, c.Claim.From, strings.Join(c.Claim.Active, ","), strings.Join(c.Active, ","), c.Epoch)
	}
	for _, c := range d.Carriers {
		fmt.Fprintf(b, "carrier %s %s %s home=%t\n", c.Node, c.Addr, c.Overlay, c.Home)
	}
	for _, p := range d.Config.Peers {
		renderPeer(b, p)
	}
	for _, v := range d.Config.VTEPs {
		fmt.Fprintf(b, "vtep %s %s", v.Node, v.Addr)
		if v.Overlay.IsValid() {
			fmt.Fprintf(b, " overlay=%s", v.Overlay)
		}
		if v.Other.IsValid() {
			fmt.Fprintf(b, " other=%s", v.Other)
		}
		fmt.Fprintf(b, " sources=%s\n", list(v.Sources))
	}
	for _, r := range d.Config.Routes {
		fmt.Fprintf(b, "route %s %s", r.Prefix, r.Via)
		if r.VTEP.IsValid() {
			fmt.Fprintf(b, " vtep=%s", r.VTEP)
		}
		if !r.Peer.IsZero() {
			fmt.Fprintf(b, " peer=%s", r.Peer)
		}
		if r.MTU != 0 {
			fmt.Fprintf(b, " mtu=%d", r.MTU)
		}
		b.WriteByte('\n')
	}
	for _, h := range d.Config.Host {
		fmt.Fprintf(b, "host %s mtu=%d\n", h.Prefix, h.MTU)
	}
	fmt.Fprintf(b, "forbidden %s\n", list(d.Config.Forbidden))
	if a := d.Config.Allow; a != nil {
		fmt.Fprintf(b, "allow %s always=%s hosts=%s\n", list(a.Sources), list(a.Always), strings.Join(a.Hosts, ","))
	}
	for _, p := range d.Problems {
		fmt.Fprintf(b, "problem %s\n", p)
	}
	return names.shorten(b.String())
}

func renderPeer(b *strings.Builder, p dataplane.Peer) {
	fmt.Fprintf(b, "peer %s/%s %s allowed=%s", p.Gateway, p.Node, p.PublicKey, list(p.AllowedIPs))
	if p.Endpoint.IsValid() {
		fmt.Fprintf(b, " endpoint=%s", p.Endpoint)
	}
	if p.EndpointHost != "" {
		fmt.Fprintf(b, " endpoint=%s:%d", p.EndpointHost, p.EndpointPort)
	}
	if p.Keepalive != 0 {
		fmt.Fprintf(b, " keepalive=%s", p.Keepalive)
	}
	renderHub(b, p.Hub, p.Relay, p.Cost)
	if p.TLSPort != 0 {
		fmt.Fprintf(b, " tls=%d", p.TLSPort)
	}
	if p.Other {
		b.WriteString(" other")
	}
	if p.SameDomain {
		b.WriteString(" same-domain")
	}
	b.WriteByte('\n')
}

func renderHub(b *strings.Builder, hub, relay bool, cost time.Duration) {
	if hub {
		b.WriteString(" hub")
	}
	if relay {
		b.WriteString(" relay")
	}
	if cost != 0 {
		fmt.Fprintf(b, " cost=%s", cost)
	}
}

func list(ps []netip.Prefix) string {
	if len(ps) == 0 {
		return "none"
	}
	var s []string
	for _, p := range ps {
		s = append(s, p.String())
	}
	return strings.Join(s, ",")
}
