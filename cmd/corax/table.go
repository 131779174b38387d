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
		{"PATH", false, func(p Peer, _ time.Time) string { return dash(string(p.Path.Kind)) }},
		{"VIA", false, func(p Peer, _ time.Time) string { return viaText(p.Path.Via) }},
		{"ENDPOINT", true, func(p Peer, _ time.Time) string { return dash(p.Path.Endpoint) }},
		{"RTT", false, func(p Peer, _ time.Time) string { return millisText(p.RTTMillis) }},
		{"LOSS", false, func(p Peer, _ time.Time) string { return lossText(p.RTTMillis, p.LossRatio) }},
		{"MTU", false, func(p Peer, _ time.Time) string { return mtuText(p.MTU) }},
		{"RX", true, func(p Peer, _ time.Time) string { return bytesText(p.RxBytes) }},
		{"TX", true, func(p Peer, _ time.Time) string { return bytesText(p.TxBytes) }},
		{"HANDSHAKE", true, func(p Peer, now time.Time) string { return ageText(now, p.LastHandshake) }},
		{"OVERLAY", true, func(p Peer, _ time.Time) string { return overlayText(p) }},
		{"SUBNETS", true, func(p Peer, _ time.Time) string { return subnetsText(p) }},
		{"NAT", true, func(p Peer, _ time.Time) string { return natText(p.NAT) }},
		// The longest comes last, where it may run on into the next line.
		{"WHY", false, func(p Peer, _ time.Time) string { return dash(p.Path.Why) }},
	}
}

// writeStatus prints s. now is what ages are counted from.
func writeStatus(w io.Writer, out output, s Status, now time.Time) error {
	return out.write(w, s, func() string { return statusTable(s, out == outputWide, now) })
}

// statusTable is status for a human: this node, its peers, its problems.
func statusTable(s Status, wide bool, now time.Time) string {
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
	return b.String()
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
	rows := [][]string{
		{"node", oneLine(fmt.Sprintf("%s, %s", s.Node, where))},
		{"public key", dash(s.PublicKey.String())},
		{"overlay", addrText(s.OverlayAddress.IsValid(), s.OverlayAddress)},
		{"datapath", oneLine(fmt.Sprintf("%s, MTU %d", datapath, s.MTU))},
		{"version", dash(s.Version)},
	}
	if n := len(s.AllowSources); n > 0 {
		rows = append(rows, []string{"allow list", fmt.Sprintf("in force: %d sources, this domain, and exposed gateways", n)})
	}
	if p := s.Proxy; p != nil {
		rows = append(rows, []string{"proxy", proxyText(*p)})
	}
	writeRows(b, append(rows, []string{"peers", peersText(s.Peers)}))
}

func writePeers(b *strings.Builder, peers []Peer, wide bool, now time.Time) {
	columns := slices.DeleteFunc(peerColumns(), func(c column) bool { return c.wide && !wide })
	rows := make([][]string, 1+len(peers))
	for _, c := range columns {
		rows[0] = append(rows[0], c.title)
		for i, p := range peers {
			rows[1+i] = append(rows[1+i], c.cell(p, now))
		}
	}
	writeRows(b, rows)
}

// writeRows writes cells in columns. They hold no tab and no line end.
func writeRows(b *strings.Builder, rows [][]string) {
	tw := newTabs(b)
	for _, row := range rows {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
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

// pathText is a path in words, where there is no column for its relays.
func pathText(p Path) string {
	if len(p.Via) == 0 {
		return dash(string(p.Kind))
	}
	return dash(string(p.Kind)) + " via " + viaText(p.Via)
}

func viaText(via []string) string { return dash(strings.Join(via, ", ")) }

// lossText leaves the loss of a path out that nothing was sent on.
func lossText(rttMillis, ratio float64) string {
	if rttMillis <= 0 && ratio <= 0 {
		return "-"
	}
	return percentText(ratio)
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
