//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

const mega = 1e6 // bytes; memory is printed in units of 10^6

// printTables prints the medians of every system, and their ratios to
// wireguard-go and to the kernel.
func printTables(w io.Writer, r results) {
	if !slices.ContainsFunc(r, func(s result) bool { return len(s.rounds) > 0 }) {
		return
	}
	fmt.Fprint(w, "\nOne TCP connection, each way in turn; CPU in seconds per GB: of the gateways' processes, all processes of the lab, the whole machine\n")
	print := func(header string, row func(*tabwriter.Writer, *result)) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(t, header)
		for i := range r {
			if len(r[i].rounds) > 0 {
				row(t, &r[i])
			}
		}
		_ = t.Flush()
	}
	wg, kernel := r.of(nameWireGuard), r.of(nameKernel)
	print("system\ta>b Gbit/s\tb>a Gbit/s\t/wg-go\t/wg-go\t/kernel\t/kernel\tCPU send\tCPU recv\tsum/wg-go\tall\tall/wg-go\tmachine\t", func(t *tabwriter.Writer, s *result) {
		fmt.Fprintf(t, "%s\t%.2f\t%.2f\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.2f\t%s\t%.2f\t\n", s.name,
			s.median(bitrate(0))/1e9, s.median(bitrate(1))/1e9,
			number("%.2f", s.ratio(wg, bitrate(0))), number("%.2f", s.ratio(wg, bitrate(1))),
			number("%.3f", s.ratio(kernel, bitrate(0))), number("%.3f", s.ratio(kernel, bitrate(1))),
			number("%.2f", s.median(gatewayCPU(0))), number("%.2f", s.median(gatewayCPU(1))),
			number("%.2f", s.ratio(wg, bothGatewaysCPU)),
			s.median(labCPU), number("%.2f", s.ratio(wg, labCPU)), s.median(machineCPUPerGB))
	})
	fmt.Fprint(w, "\nUDP received a>b, thousands per second (loss) and ratio to wireguard-go, by payload; round trips in µs; memory of the larger gateway in MB\n")
	print("system\t64 B\t/wg-go\t512 B\t/wg-go\t1400 B\t/wg-go\tp50\tp99\tidle\tpeak\t", func(t *tabwriter.Writer, s *result) {
		fmt.Fprintf(t, "%s\t", s.name)
		for i := range udpSizes {
			fmt.Fprintf(t, "%.0f (%.0f%%)\t%s\t", s.median(packetRate(i))/1e3, 100*s.median(loss(i)),
				number("%.2f", s.ratio(wg, packetRate(i))))
		}
		fmt.Fprintf(t, "%.0f\t%.0f\t%s\t%s\t\n", s.median(p50), s.median(p99),
			number("%.1f", s.median(idleMemory)/mega), number("%.1f", s.median(peakMemory)/mega))
	})
}

// number formats a figure that is 0 when there is none.
func number(format string, v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf(format, v)
}
