//go:build linux

package main

import (
	"slices"
	"time"
)

// of returns the result of a system; nil when it was not measured.
func (r results) of(name string) *result {
	for i := range r {
		if r[i].name == name && len(r[i].rounds) > 0 {
			return &r[i]
		}
	}
	return nil
}

// median of one figure over the rounds.
func (r *result) median(get func(figures) float64) float64 {
	values := make([]float64, len(r.rounds))
	for i, f := range r.rounds {
		values[i] = get(f)
	}
	return median(values)
}

// median returns the middle value, or the mean of the middle two; 0 of none. It
// sorts the values.
func median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return 0
	}
	slices.Sort(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// ratio of the medians of one figure to those of another system; 0 when either
// has none.
func (r *result) ratio(to *result, get func(figures) float64) float64 {
	if r == nil || to == nil {
		return 0
	}
	divisor := to.median(get)
	if divisor == 0 {
		return 0
	}
	return r.median(get) / divisor
}

// The figures that tables and goals show.

func bitrate(from int) func(figures) float64 {
	return func(f figures) float64 { return f.tcp[from].bitrate }
}

// gatewayCPU is the CPU time of one gateway, the one at the sender (0) or at the
// receiver (1), per GB, as the mean of both directions.
func gatewayCPU(gw int) func(figures) float64 {
	return func(f figures) float64 { return (f.tcp[0].gateway[gw] + f.tcp[1].gateway[gw]) / 2 }
}

// bothGatewaysCPU is the sum over both.
func bothGatewaysCPU(f figures) float64 { return gatewayCPU(0)(f) + gatewayCPU(1)(f) }

func labCPU(f figures) float64 { return (f.tcp[0].lab + f.tcp[1].lab) / 2 }

func machineCPUPerGB(f figures) float64 { return (f.tcp[0].machine + f.tcp[1].machine) / 2 }

func packetRate(size int) func(figures) float64 {
	return func(f figures) float64 { return f.udp[size].rate }
}

func loss(size int) func(figures) float64 {
	return func(f figures) float64 { return f.udp[size].loss }
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func p50(f figures) float64 { return micros(f.latency.p50) }

func p99(f figures) float64 { return micros(f.latency.p99) }

func idleMemory(f figures) float64 { return float64(f.idle) }

func peakMemory(f figures) float64 { return float64(f.peak) }
