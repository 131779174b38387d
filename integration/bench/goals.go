//go:build linux

package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// goal is a figure of Corax with the bound that it should keep.
type goal struct {
	what   string
	value  float64 // 0: not measured
	bound  float64
	atMost bool // the bound is an upper one
	format string
	aim    string
}

// met reports whether the value keeps the bound.
func (g goal) met() bool {
	if g.atMost {
		return g.value <= g.bound
	}
	return g.value >= g.bound
}

// goals compares the medians; size is that of the binary in bytes.
func goals(r results, size int64) []goal {
	corax, wg, libipsec := r.of(nameCorax), r.of(nameWireGuard), r.of(nameLibipsec)
	g := []goal{
		{what: "TCP a>b / wireguard-go", value: corax.ratio(wg, bitrate(0)), bound: 1.2, format: "%.2f", aim: "aim 1.5"},
		{what: "TCP b>a / wireguard-go", value: corax.ratio(wg, bitrate(1)), bound: 1.2, format: "%.2f", aim: "aim 1.5"},
		{what: "TCP a>b / libipsec", value: corax.ratio(libipsec, bitrate(0)), bound: 6, format: "%.1f"},
		{what: "TCP b>a / libipsec", value: corax.ratio(libipsec, bitrate(1)), bound: 6, format: "%.1f"},
		{what: "CPU s/GB of the gateways / wireguard-go", value: corax.ratio(wg, bothGatewaysCPU), bound: 0.7, atMost: true, format: "%.2f"},
	}
	memory := func(what string, get func(figures) float64, bound float64) {
		m := goal{what: what, bound: bound, atMost: true, format: "%.1f"}
		if corax != nil {
			m.value = corax.median(get) / mega
		}
		g = append(g, m)
	}
	memory("resident memory idle, MB", idleMemory, 40)
	memory("resident memory under load, MB", peakMemory, 150)
	return append(g, goal{what: "binary, MB", value: float64(size) / mega, bound: 45, atMost: true, format: "%.1f"})
}

// printGoals prints each goal with the value measured. It prints nothing when
// Corax was not measured.
func printGoals(w io.Writer, r results, size int64) {
	if r.of(nameCorax) == nil {
		return
	}
	printGoalList(w, goals(r, size))
}

func printGoalList(w io.Writer, list []goal) {
	fmt.Fprintln(w, "\nGoals")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, g := range list {
		sign, verdict := ">=", "not met"
		if g.atMost {
			sign = "<="
		}
		switch {
		case g.value == 0:
			verdict = "not measured"
		case g.met():
			verdict = "met"
		}
		bound := fmt.Sprintf("%s %g", sign, g.bound)
		if g.aim != "" {
			bound += " (" + g.aim + ")"
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", g.what, number(g.format, g.value), bound, verdict)
	}
	_ = t.Flush()
}
