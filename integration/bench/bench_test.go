//go:build linux

package main

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"corax/integration/lab"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == trafficArg { // a traffic process of ours
		os.Exit(traffic(os.Args[2:]))
	}
	os.Exit(lab.Main(m))
}

// needLab skips the test where no lab can be built.
func needLab(t *testing.T) {
	t.Helper()
	if err := lab.Usable(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// TestKernel runs one short round over kernel routing and wants traffic, not
// speed.
func TestKernel(t *testing.T) {
	needLab(t)
	chosen, err := pick(systems(""), nameKernel)
	if err != nil {
		t.Fatal(err)
	}
	r, err := measureAll(t.Context(), chosen, 1, plan{seconds: 200 * time.Millisecond}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(r) != 1 || len(r[0].rounds) != 1 {
		t.Fatalf("results %+v", r)
	}
	f := r[0].rounds[0]
	for i, v := range f.tcp {
		if v.bitrate <= 0 || v.machine < 0 {
			t.Errorf("TCP %d: %+v", i, v)
		}
		if v.gateway != [2]float64{} {
			t.Errorf("TCP %d: gateway processes of the kernel: %+v", i, v)
		}
	}
	for i, v := range f.udp {
		if v.rate <= 0 || v.loss < 0 || v.loss > 1 {
			t.Errorf("UDP %d: %+v", i, v)
		}
	}
	if f.latency.count == 0 || f.latency.p50 <= 0 || f.latency.p99 < f.latency.p50 {
		t.Errorf("round trips %+v", f.latency)
	}
}

// TestUserspace does the same with wireguard-go, whose process and VXLAN the
// kernel alone does not try.
func TestUserspace(t *testing.T) {
	needLab(t)
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip(err)
	}
	chosen, err := pick(systems(""), nameWireGuard)
	if err != nil {
		t.Fatal(err)
	}
	if why := chosen[0].missing(); why != "" {
		t.Fatal(why)
	}
	f, err := round(t.Context(), chosen[0], plan{seconds: 500 * time.Millisecond, rest: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if f.tcp[0].bitrate <= 0 || f.tcp[1].bitrate <= 0 {
		t.Errorf("TCP %+v", f.tcp)
	}
	if f.idle == 0 || f.peak < f.idle {
		t.Errorf("memory idle %d, peak %d", f.idle, f.peak)
	}
}

// TestNotConnected checks that a system that connects nothing is an error that
// the others survive, not a row of zeros.
func TestNotConnected(t *testing.T) {
	needLab(t)
	broken := system{
		name: "broken", missing: func() string { return "" },
		start: func(context.Context, *network) (gateways, error) { return gateways{}, nil },
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := round(ctx, broken, plan{seconds: time.Second}); err == nil {
		t.Error("no error")
	}
}

func TestSkipped(t *testing.T) {
	absent := system{name: "absent", missing: installed("/no/such/program")}
	var out strings.Builder
	r, err := measureAll(t.Context(), []system{absent}, 1, plan{seconds: time.Second}, &out)
	if err != nil || len(r) != 0 {
		t.Errorf("results %+v, error %v", r, err)
	}
	if want := "absent skipped: /no/such/program is not installed\n"; out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
}

func TestPick(t *testing.T) {
	all := systems("bin/corax")
	for _, test := range []struct {
		names string
		want  int // -1: an error
	}{
		{"all", len(all)},
		{"kernel", 1},
		{"corax,wireguard-go", 2},
		{"corax,nosuch", -1},
		{"corax,before=/tmp/corax", 2},
		{"=/tmp/corax", -1},
		{"", -1},
	} {
		got, err := pick(all, test.names)
		if (err != nil) != (test.want < 0) || err == nil && len(got) != test.want {
			t.Errorf("pick %q: %d systems, error %v", test.names, len(got), err)
		}
	}
	if _, err := pick(all, strings.Join([]string{nameCorax, nameWireGuard}, ",")); err != nil {
		t.Error(err)
	}
}
