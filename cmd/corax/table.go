package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// column is one column of the peer table.
type column struct {
	title string
	wide  bool // only with -o wide
	cell  func(p Peer, now time.Time) string
}

func peerColumns() []column {
	return []column{
		{"GATEWAY", false, func(p Peer, _ time.Time) string { return dash(p.Gateway) }},
		{"NODE", false, func(p Peer, _ time.Time) string { return dash(p.Node) }},
		{"PATH", false, func(p Peer, _ time.Time) string { return pathText(p.Path) }},
		{"ENDPOINT", true, func(p Peer, _ time.Time) string { return dash(p.Path.Endpoint) }},
		{"RTT", false, func(p Peer, _ time.Time) string { return millisText(p.RTTMillis) }},
		{"LOSS", false, func(p Peer, _ time.Time) string { return lossText(p) }},
		{"MTU", true, func(p Peer, _ time.Time) string { return mtuText(p.MTU) }},
		{"RX", false, func(p Peer, _ time.Time) string { return bytesText(p.RxBytes) }},
		{"TX", false, func(p Peer, _ time.Time) string { return bytesText(p.TxBytes) }},
		{"HANDSHAKE", false, func(p Peer, now time.Time) string { return ageText(now, p.LastHandshake) }},
		{"OVERLAY", true, func(p Peer, _ time.Time) string { return overlayText(p) }},
		{"SUBNETS", true, func(p Peer, _ time.Time) string { return subnetsText(p) }},
		{"NAT", true, func(p Peer, _ time.Time) string { return natText(p.NAT) }},
		{"WHY", true, func(p Peer, _ time.Time) string { return dash(p.Path.Why) }},
	}
}

// writeTable writes status for a human: this node, its peers, its problems.
func writeTable(w io.Writer, s Status, wide bool, now time.Time) error {
	var b strings.Builder
	writeSelf(&b, s)
	if len(s.Peers) > 0 {
		b.WriteByte('\n')
		writePeers(&b, s.Peers, wide, now)
	}
	if len(s.Problems) > 0 {
		b.WriteString("\nproblems:\n")
		for _, p := range s.Problems {
			fmt.Fprintf(&b, "  - %s\n", strings.ReplaceAll(printable(p), "\n", "\n    "))
		}
	}
	if wide && len(s.Counters) > 0 {
		b.WriteString("\ndropped:\n")
		writeCounters(&b, s.Counters)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeSelf(b *strings.Builder, s Status) {
	where := "in no gateway"
	if s.Gateway != "" {
		where = string(s.Role) + " of " + s.Gateway
		if s.Role == RoleGateway {
			where = "gateway node of " + s.Gateway
		}
	}
	datapath := s.Datapath
	if s.DatapathReason != "" {
		datapath += " (" + s.DatapathReason + ")"
	}
	tw := newTabs(b)
	for _, row := range [][2]string{
		{"node", fmt.Sprintf("%s, %s", s.Node, where)},
		{"public key", s.PublicKey.String()},
		{"overlay", addrText(s.OverlayAddress.IsValid(), s.OverlayAddress)},
		{"datapath", fmt.Sprintf("%s, MTU %d", datapath, s.MTU)},
		{"version", s.Version},
		{"peers", peersText(s.Peers)},
	} {
		fmt.Fprintf(tw, "%s\t%s\n", row[0], dash(row[1]))
	}
	_ = tw.Flush()
}

func writePeers(b *strings.Builder, peers []Peer, wide bool, now time.Time) {
	columns := slices.DeleteFunc(peerColumns(), func(c column) bool { return c.wide && !wide })
	tw := newTabs(b)
	row := func(cell func(c column) string) {
		for i, c := range columns {
			if i > 0 {
				fmt.Fprint(tw, "\t")
			}
			fmt.Fprint(tw, cell(c))
		}
		fmt.Fprintln(tw)
	}
	row(func(c column) string { return c.title })
	for _, p := range peers {
		row(func(c column) string { return c.cell(p, now) })
	}
	_ = tw.Flush()
}

func writeCounters(b *strings.Builder, counters map[string]uint64) {
	names := make([]string, 0, len(counters))
	for name := range counters {
		names = append(names, name)
	}
	slices.Sort(names)
	tw := newTabs(b)
	for _, name := range names {
		fmt.Fprintf(tw, "  %s\t%d\n", oneLine(name), counters[name])
	}
	_ = tw.Flush()
}

func newTabs(b *strings.Builder) *tabwriter.Writer { return tabwriter.NewWriter(b, 0, 0, 3, ' ', 0) }

// peersText counts, and names what is wrong first.
func peersText(peers []Peer) string {
	if len(peers) == 0 {
		return "none"
	}
	lost := 0
	for _, p := range peers {
		if !p.Path.Kind.Reachable() {
			lost++
		}
	}
	if lost == 0 {
		return fmt.Sprintf("%d, all reachable", len(peers))
	}
	return fmt.Sprintf("%d of %d not reachable", lost, len(peers))
}

func pathText(p Path) string {
	if len(p.Via) == 0 {
		return dash(string(p.Kind))
	}
	return oneLine(fmt.Sprintf("%s via %s", p.Kind, strings.Join(p.Via, ", ")))
}

// lossText leaves the loss of a path out that nothing was sent on.
func lossText(p Peer) string {
	if p.RTTMillis <= 0 && p.LossRatio <= 0 {
		return "-"
	}
	return percentText(p.LossRatio)
}

func mtuText(mtu int) string {
	if mtu == 0 {
		return "-"
	}
	return fmt.Sprint(mtu)
}

func overlayText(p Peer) string { return addrText(p.OverlayAddress.IsValid(), p.OverlayAddress) }

func addrText(valid bool, a fmt.Stringer) string {
	if !valid {
		return "-"
	}
	return a.String()
}

func subnetsText(p Peer) string {
	names := make([]string, len(p.Subnets))
	for i, s := range p.Subnets {
		names[i] = s.String()
	}
	return dash(strings.Join(names, ","))
}

func natText(n NAT) string {
	if n == (NAT{}) {
		return "-"
	}
	return dash(n.Local) + " / " + dash(n.Remote)
}
