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

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

// TestTraffic runs the demo's traffic over plain kernel routing: it must pass
// where the network works, whatever the agents do.
func TestTraffic(t *testing.T) {
	l := lab.ForTest(t)
	d := &demo{out: io.Discard}
	if err := d.build(l); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	d.topo.RoutePlain()
	for _, step := range []func(context.Context) error{d.ping, d.transfer, d.datagrams, d.service} {
		if err := step(ctx); err != nil {
			t.Error(err)
		}
	}
	// 2 cloud pods, 4 edge pods, both ways, 2 families.
	if s := d.sums; s.pings != 2*32 || s.datagrams != 2*32 || s.transfers != 16+2+4 || s.lookups != 4 {
		t.Errorf("sent %+v", s)
	}
}

// TestTrafficFails checks that the steps notice a network that does not work.
func TestTrafficFails(t *testing.T) {
	l := lab.ForTest(t)
	d := &demo{out: io.Discard}
	if err := d.build(l); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	for i, step := range []func(context.Context) error{d.ping, d.transfer, d.datagrams, d.hosts, d.service} {
		if err := step(ctx); err == nil {
			t.Errorf("step %d passed without a network", i)
		}
	}
	if d.sums.bytes != 0 {
		t.Errorf("counted %+v", d.sums)
	}
}

func TestHiddenSourceIsNoticed(t *testing.T) {
	l := lab.ForTest(t)
	d := &demo{out: io.Discard}
	if err := d.build(l); err != nil {
		t.Fatal(err)
	}
	d.topo.RoutePlain()
	d.topo.Domains[1].Router.SetNAT(lab.NAT{Mapping: lab.MapKeepPort})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := d.datagrams(ctx); err == nil || !strings.Contains(err.Error(), "hidden") {
		t.Errorf("%v", err)
	}
}
