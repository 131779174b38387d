package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// writeNetcheck prints n.
func writeNetcheck(w io.Writer, out output, n Netcheck) error {
	return out.write(w, n, func() string { return netcheckTable(n) })
}

// netcheckTable is what an agent found out about its network, for a human.
func netcheckTable(n Netcheck) string {
	var b strings.Builder
	where := "in no gateway"
	if n.Gateway != "" {
		where = "of " + n.Gateway
	}
	mtu := "not measured"
	if n.MTU != 0 {
		mtu = fmt.Sprintf("%d to the hubs, inside the tunnel", n.MTU)
	}
	writeRows(&b, [][]string{
		{"node", dash(n.Node) + ", " + oneLine(where)},
		{"UDP", udpText(n)},
		{"port mapping", portMappingText(n.PortMapping)},
		{"MTU", mtu},
	})
	b.WriteByte('\n')
	writeRows(&b, familyRows(n))
	if rows := serverRows(n); len(rows) > 1 {
		b.WriteByte('\n')
		writeRows(&b, rows)
	}
	if len(n.TLS) > 0 {
		b.WriteByte('\n')
		writeRows(&b, tlsRows(n.TLS))
	}
	return b.String()
}

// familyRows has a column for each IP version.
func familyRows(n Netcheck) [][]string {
	rows := [][]string{{"", "IPv4", "IPv6"}}
	for _, r := range []struct {
		title string
		cell  func(NetcheckFamily) string
	}{
		{"mapping", func(f NetcheckFamily) string { return dash(f.Mapping) }},
		{"filtering", func(f NetcheckFamily) string { return dash(f.Filtering) }},
		{"public address", func(f NetcheckFamily) string { return dash(strings.Join(f.Public, ", ")) }},
		{"ports", portsText},
		{"mapping lifetime", lifetimeText},
		{"hairpinning", func(f NetcheckFamily) string { return dash(f.Hairpin) }},
	} {
		rows = append(rows, []string{r.title, r.cell(n.IPv4), r.cell(n.IPv6)})
	}
	return rows
}

func serverRows(n Netcheck) [][]string {
	rows := [][]string{{"HUB", "NODE", "ADDRESS", "ANSWER", "RTT", "MTU", "SEEN AS"}}
	add := func(s NetcheckServer, who string) {
		answer := "none"
		if s.Answered {
			answer = "yes"
		}
		rows = append(rows, []string{
			who, dash(s.Node), dash(s.Address), answer, millisText(s.RTTMillis), mtuText(s.MTU), dash(s.Mapped),
		})
	}
	for _, s := range n.Hubs {
		add(s, dash(s.Gateway))
	}
	for _, s := range n.Servers {
		add(s, "(STUN server)")
	}
	return rows
}

func tlsRows(list []NetcheckTLS) [][]string {
	rows := [][]string{{"TLS FALLBACK", "ADDRESS", "RTT", "STATE"}}
	for _, t := range list {
		state := "open"
		if !t.Open {
			state = withDetail("not reached", t.Error)
		}
		rows = append(rows, []string{dash(t.Hub), dash(t.Address), millisText(t.RTTMillis), state})
	}
	return rows
}

// udpText says over which IP versions UDP gets out and back.
func udpText(n Netcheck) string {
	if n.UDPBlocked {
		return "blocked: no server answered"
	}
	var parts []string
	for _, f := range []struct {
		name string
		NetcheckFamily
	}{{"IPv4", n.IPv4}, {"IPv6", n.IPv6}} {
		switch {
		case f.Blocked:
			parts = append(parts, "blocked over "+f.name)
		case len(f.Public) > 0:
			parts = append(parts, "open over "+f.name)
		}
	}
	if len(parts) == 0 {
		return "not known: there was no hub or STUN server to ask"
	}
	return strings.Join(parts, ", ")
}

func portMappingText(p NetcheckPortMapping) string {
	text := dash(p.Text)
	if p.Mapped != "" {
		text += "; in use: " + oneLine(p.Mapped)
	}
	if p.Device != "" {
		text += " (" + oneLine(p.Device) + ")"
	}
	return text
}

// portsText says how the NAT chooses the ports of its mappings.
func portsText(f NetcheckFamily) string {
	switch {
	case f.Mapping == "" || f.Mapping == "unknown" || f.Mapping == "no NAT":
		return "-"
	case f.PortPreserved:
		return "preserved"
	case f.PortStep != 0:
		return fmt.Sprintf("in steps of %+d", f.PortStep)
	case f.Mapping == "endpoint-independent":
		return "not preserved"
	default:
		return "not predictable"
	}
}

func lifetimeText(f NetcheckFamily) string {
	if f.LifetimeSeconds == 0 {
		return "-"
	}
	return fmt.Sprintf("%v or longer", time.Duration(f.LifetimeSeconds)*time.Second)
}
