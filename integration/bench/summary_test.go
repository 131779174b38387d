//go:build linux

package main

import (
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{
		{nil, 0},
		{[]float64{3}, 3},
		{[]float64{4, 2}, 3},
		{[]float64{9, 1, 5}, 5},
		{[]float64{100, 1, 2, 3, 4}, 3},
	} {
		if got := median(test.values); got != test.want {
			t.Errorf("median of %v: %v, want %v", test.values, got, test.want)
		}
	}
}

func TestQuantile(t *testing.T) {
	var v []time.Duration
	for i := range 100 {
		v = append(v, time.Duration(i+1))
	}
	if a, b := quantile(v, 50), quantile(v, 99); a != 51 || b != 100 {
		t.Errorf("p50 %d, p99 %d", a, b)
	}
	if got := quantile(v[:1], 99); got != 1 {
		t.Errorf("p99 of one value: %d", got)
	}
}

// same makes a system with equal rounds.
func same(name string, f figures) result { return result{name, []figures{f, f, f}} }

func sampleResults() results {
	f := func(gbit, cpu, kpps, megabytes float64) figures {
		tcp := tcpFigures{bitrate: gbit * 1e9, gateway: [2]float64{cpu, 2 * cpu}, lab: 4 * cpu, machine: 5 * cpu}
		udp := udpFigures{rate: kpps * 1e3, loss: 0.25}
		return figures{
			tcp: [2]tcpFigures{tcp, tcp}, udp: [len(udpSizes)]udpFigures{udp, udp, udp},
			latency: latency{p50: 100 * time.Microsecond, p99: time.Millisecond, count: 9},
			idle:    uint64(megabytes * mega), peak: uint64(2 * megabytes * mega),
		}
	}
	return results{
		same(nameKernel, f(10, 0, 500, 0)), same(nameWireGuard, f(1, 4, 50, 6)),
		same(nameCorax, f(1.5, 2, 100, 20)),
		{name: nameLibipsec},
	}
}

func TestGoals(t *testing.T) {
	want := []struct {
		value float64
		met   bool
	}{
		{1.5, true},
		{1.5, true}, // TCP
		{0, false},
		{0, false}, // libipsec was not measured
		{0.5, true},
		{20, true},
		{40, true},
		{50, false}, // binary
	}
	got := goals(sampleResults(), 50e6)
	if len(got) != len(want) {
		t.Fatalf("%d goals, want %d", len(got), len(want))
	}
	for i, g := range got {
		if g.value != want[i].value || g.met() != want[i].met {
			t.Errorf("%s: %v met %v, want %v", g.what, g.value, g.met(), want[i])
		}
	}
}

func TestPrint(t *testing.T) {
	var b strings.Builder
	printTables(&b, sampleResults())
	if strings.Contains(b.String(), nameLibipsec) {
		t.Errorf("a system without figures has a row:\n%s", b.String())
	}
	printGoals(&b, sampleResults(), 20e6)
	text := b.String()
	for _, want := range []string{
		"wireguard-go        1.00        1.00    1.00    1.00    0.100    0.100      4.00      8.00       1.00  16.00       1.00    20.00",
		"corax        1.50        1.50    1.50    1.50    0.150    0.150      2.00      4.00       0.50   8.00       0.50    10.00",
		"corax  100 (25%)    2.00",
		"not measured",
		"binary, MB                               20.0  <= 45             met",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("missing %q in:\n%s", want, text)
		}
	}
	b.Reset()
	printTables(&b, results{{name: nameCorax}})
	printGoals(&b, results{{name: nameCorax}}, 1)
	if b.Len() != 0 {
		t.Errorf("without figures: %q", b.String())
	}
}
