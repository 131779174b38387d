//go:build linux

package main

import (
	"strings"
	"testing"
	"time"

	"corax/integration/lab"
)

func TestPickParts(t *testing.T) {
	for _, tt := range []struct {
		names string
		want  string // empty: an error
	}{
		{"all", "systems relay pairs hub peers proxy rootless"},
		{"hub", "hub"},
		{"peers,relay", "relay peers"},
		{"relay,nosuch", ""},
		{"", ""},
	} {
		got, err := pickParts(tt.names)
		var names []string
		for _, p := range got {
			names = append(names, p.name)
		}
		if (err != nil) != (tt.want == "") || strings.Join(names, " ") != tt.want {
			t.Errorf("%q: %v, %v", tt.names, names, err)
		}
	}
}

// short is a plan that wants figures, not good ones.
var short = plan{seconds: 200 * time.Millisecond}

func corax(t *testing.T) string {
	t.Helper()
	needLab(t)
	path, err := lab.Corax()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestWays sends traffic on each way, and looks who had work with it.
func TestWays(t *testing.T) {
	path := corax(t)
	for _, w := range relayWays() {
		t.Run(w.name, func(t *testing.T) {
			p := plan{seconds: time.Second}
			tcp, udp, err := measureWay(t.Context(), path, w, p)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range []wayFigures{tcp, udp} {
				if f.bitrate <= 0 || f.loss < 0 || f.loss > 1 || f.gateway[0] <= 0 || f.gateway[1] <= 0 {
					t.Errorf("%+v", f)
				}
			}
			// What the hub does without traffic is less than a tenth of what a gateway
			// does. Of the few datagrams it is too little to be counted in ticks.
			if relayed := tcp.hub > (tcp.gateway[0]+tcp.gateway[1])/20; relayed != (w.name != wayDirect) {
				t.Errorf("relayed %t: %+v", relayed, tcp)
			}
		})
	}
}

func TestPair(t *testing.T) {
	path := corax(t)
	public, cone := lab.Kinds()[0], lab.Kinds()[1]
	f, err := measurePair(t.Context(), path, public, cone)
	if err != nil || f.first <= 0 || f.direct < f.first {
		t.Errorf("%+v, %v", f, err)
	}
}

// TestHub has three edges, each of which sends to two others.
func TestHub(t *testing.T) {
	var out strings.Builder
	if err := measureHub(t.Context(), corax(t), short, 3, &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2+1+len(meshRates) || !strings.Contains(lines[0], "3 pairs, of 3 edges") {
		t.Fatalf("printed\n%s", out.String())
	}
	for i, rate := range []string{"0", "1", "10", "50"} {
		f := strings.Fields(lines[2+i])
		if f[0] != rate || rate == "0" && f[1] != "0" || rate == "50" && f[1] == "0" {
			t.Errorf("line %q", lines[2+i])
		}
	}
}

// TestPeers measures with few peers; that a change is seen, the run itself checks.
func TestPeers(t *testing.T) {
	var out strings.Builder
	if err := measurePeers(t.Context(), corax(t), short, []int{3, 5}, &out); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"      3    hub ", "      5   edge ", "5 peers: resident memory, MB  "} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("no %q in\n%s", text, out.String())
		}
	}
}

func TestPrintWays(t *testing.T) {
	f := func(bitrate, a, hub, b float64) []wayFigures {
		return []wayFigures{{bitrate: bitrate, gateway: [2]float64{a, b}, hub: hub}}
	}
	var out strings.Builder
	ways := relayWays()[:2]
	if r := printWays(&out, "traffic", ways, [][]wayFigures{f(4e9, 3, 0, 1), f(2e9, 3, 0.5, 1)}); r != 4 {
		t.Errorf("ratio %v, want 4", r)
	}
	for _, want := range []string{
		"direct    4.00   0 %  3.00  0.00  1.00      4.00     1.00",
		"relay    2.00   0 %  3.00  0.50  1.00     16.00     4.00",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}
