package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"time"
)

// writePaths prints p. now is what ages are counted from, and its time zone is
// that of the history.
func writePaths(w io.Writer, out output, p Paths, now time.Time) error {
	return out.write(w, p, func() string { return pathsTable(p, now) })
}

// pathsTable is the ways to a peer for a human: the one in use, all that are
// known, and how it came about.
func pathsTable(p Paths, now time.Time) string {
	var b strings.Builder
	writeRows(&b, pathRows(p, now))
	if len(p.Candidates) > 0 {
		b.WriteByte('\n')
		writeRows(&b, candidateRows(p.Candidates))
	}
	if len(p.Transitions) > 0 {
		b.WriteByte('\n')
		writeRows(&b, transitionRows(p.Transitions, now))
	}
	return b.String()
}

// pathRows are the facts of the path in use.
func pathRows(p Paths, now time.Time) [][]string {
	peer := dash(p.Gateway) + "/" + dash(p.Node)
	if p.OverlayAddress.IsValid() {
		peer += ", " + p.OverlayAddress.String()
	}
	path := pathText(p.Path)
	if p.Path.Endpoint != "" {
		path += " (" + oneLine(p.Path.Endpoint) + ")"
	}
	traffic := "none"
	if p.Active {
		traffic = "yes"
	}
	nat := "-"
	if p.NAT != (NAT{}) {
		nat = dash(p.NAT.Local) + " here, " + dash(p.NAT.Remote) + " there"
	}
	mtu := mtuText(p.MTU)
	if p.MTU6 != 0 && p.MTU6 != p.MTU {
		mtu += fmt.Sprintf(", for IPv6 %d", p.MTU6)
	}
	return [][]string{
		{"peer", peer},
		{"path", path},
		{"since", sinceText(now, p.Since)},
		{"why", withDetail(p.Path.Why, p.Detail)},
		{"traffic", traffic},
		{"RTT", millisText(p.RTTMillis)},
		{"loss", lossText(p.RTTMillis, p.LossRatio)},
		{"MTU", mtu},
		{"NAT", nat},
		{"next try", untilText(now, p.NextTry)},
	}
}

// candidateRows are the ways, the one in use first, then the proven, and of
// those the cheapest first.
func candidateRows(candidates []PathCandidate) [][]string {
	list := slices.Clone(candidates)
	sort.SliceStable(list, func(i, j int) bool {
		x, y := &list[i], &list[j]
		return cmp.Or(
			trueFirst(x.InUse, y.InUse),
			trueFirst(x.Proven, y.Proven),
			trueFirst(x.CostMillis > 0, y.CostMillis > 0),
			cmp.Compare(x.CostMillis, y.CostMillis),
		) < 0
	})
	rows := [][]string{{"CANDIDATE", "VIA", "ADDRESS", "ORIGIN", "STATE", "COST", "RTT", "LOSS", "MTU", "PROBES", "WHY"}}
	for _, c := range list {
		rows = append(rows, []string{
			dash(string(c.Kind)), viaText(c.Via), dash(c.Address), dash(c.Candidate), stateText(c), millisText(c.CostMillis),
			millisText(c.RTTMillis), lossText(c.RTTMillis, c.LossRatio), mtuText(c.MTU), fmt.Sprint(c.Probes), dash(c.Why),
		})
	}
	return rows
}

func transitionRows(transitions []PathTransition, now time.Time) [][]string {
	rows := [][]string{{"TIME", "FROM", "TO", "CAUSE"}}
	for _, t := range transitions {
		rows = append(rows, []string{clockText(now, t.At), dash(t.From), dash(t.To), withDetail(t.Cause, t.Detail)})
	}
	return rows
}

func trueFirst(x, y bool) int {
	switch {
	case x == y:
		return 0
	case x:
		return -1
	default:
		return 1
	}
}

// stateText says what a candidate is good for at present.
func stateText(c PathCandidate) string {
	switch {
	case c.InUse && c.Proven:
		return "in use"
	case c.InUse:
		return "in use, not proven"
	case c.Proven:
		return "proven"
	default:
		return "-"
	}
}

// withDetail is a reason with what it leaves open.
func withDetail(why, detail string) string {
	if detail == "" {
		return dash(why)
	}
	return dash(why) + ": " + oneLine(detail)
}
