//go:build linux

package tunnel_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"corax/integration/lab"
)

// stunRequest is a Binding request that every hub answers.
func stunRequest() []byte {
	return append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42}, "corax test!!"...)
}

// TestAllowList has a hub serve one of two edges. The other gets nothing from it,
// whatever it sends; the hubs of the cloud reach each other all the same.
func TestAllowList(t *testing.T) {
	topo := lab.Standard(lab.ForTest(t), lab.Options{Edges: 2, Nodes: 3})
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	keys, err := topo.Prepare(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cloud, a, b := topo.Domains[0], topo.Domains[1], topo.Domains[2]
	g := topo.Object(cloud, keys)
	two := 2
	g.Replicas = &two
	g.Endpoints = append(g.Endpoints, lab.Endpoint{Node: cloud.Nodes[1].Name, PublicIP: cloud.Nodes[1].IP, PublicKey: keys[cloud.Nodes[1].Name]})
	if err := g.Write(topo.Gateways); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(topo.Gateways, "..", "allow.yaml")
	inside := netip.MustParsePrefix("203.0.113.10/32") // edge-a's router
	if err := os.WriteFile(config, fmt.Appendf(nil, "allowSources: [100.64.0.0/10, %s]\n", inside), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, ag := range topo.Agents() {
		ag.SetArgs("--config", config)
	}
	outsider := netip.MustParseAddr("203.0.113.20") // edge-b's router
	hubs := map[netip.Addr]bool{cloud.Nodes[0].IP: true, cloud.Nodes[1].IP: true}
	// What a TCP listener of the kernel says by itself is not the hub's.
	got, err := b.Router.Capture("wan", func(f lab.Frame) bool {
		return !f.Outgoing && hubs[f.Src] && f.Dst == outsider && !(f.Protocol == unix.IPPROTO_TCP && f.Len < 100)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range topo.Nodes() {
		if _, err := n.Pods[0].Serve(streamPort); err != nil {
			t.Fatal(err)
		}
	}
	for _, ag := range topo.Agents() {
		if err := ag.Start(); err != nil {
			t.Fatal(err)
		}
	}

	// Inside the list, and inside the VPC: plain nodes, both hubs, both ways.
	for _, way := range [][2]*lab.Node{{a.Nodes[1], cloud.Nodes[2]}, {cloud.Nodes[1], a.Nodes[2]}, {a.Nodes[0], cloud.Nodes[0]}} {
		if err := way[0].Pods[0].PingBetween(ctx, way[1].Pods[0], false); err != nil {
			t.Errorf("%s to %s: %v", way[0], way[1], err)
		}
		if _, err := way[0].Pods[0].EchoTCP(ctx, netip.AddrPortFrom(way[1].Pods[0].IP, streamPort), 10_000); err != nil {
			t.Errorf("%s to %s: %v", way[0], way[1], err)
		}
	}
	if _, err := cloud.Agents[0].Command(ctx, "ping", "-c", "2", cloud.Nodes[1].Name); err != nil {
		t.Errorf("between the hubs: %v", err)
	}
	for _, hub := range cloud.Agents[:2] {
		s, err := hub.Status(ctx)
		if err != nil || len(s.AllowSources) != 2 {
			t.Errorf("%s shows %+v, %v", hub.Host.Name, s, err)
		}
	}
	if s, err := a.Agents[0].Status(ctx); err != nil || len(s.AllowSources) != 0 {
		t.Errorf("an edge has an allow list: %+v, %v", s, err)
	}

	// Outside: its agent tries all the time, and so do we.
	for _, hub := range cloud.Agents[:2] {
		if err := hub.WaitStatus(ctx, counted("wg_drop_total{source_not_allowed}", 1)); err != nil {
			t.Error(err)
		}
	}
	answered := func(from *lab.Node) bool {
		c, err := from.DialUDP(netip.AddrPortFrom(cloud.Nodes[0].IP, 4500))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		buf := make([]byte, 1500)
		for range 3 {
			if _, err := c.Write(stunRequest()); err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			if _, err := c.Read(buf); err == nil {
				return true
			}
		}
		return false
	}
	fallback := netip.AddrPortFrom(cloud.Nodes[0].IP, 10280)
	if !answered(a.Nodes[1]) {
		t.Error("an edge inside the list gets no STUN answer")
	}
	if answered(b.Nodes[1]) {
		t.Error("an edge outside the list gets a STUN answer")
	}
	if err := speaksTLS(ctx, b.Nodes[1].Host, fallback); err == nil {
		t.Error("the TLS fallback answers an edge outside the list")
	}
	if err := speaksTLS(ctx, a.Nodes[1].Host, fallback); err != nil {
		t.Errorf("the TLS fallback does not answer an edge inside the list: %v", err)
	}
	short, stop := context.WithTimeout(ctx, 2*time.Second)
	defer stop()
	if _, err := b.Nodes[1].Pods[0].Ping(short, cloud.Nodes[2].Pods[0].IP, lab.PingOptions{}); err == nil {
		t.Error("an edge outside the list reaches the cloud")
	}
	if n := got.Count(); n != 0 {
		t.Errorf("%d packets went from the hubs to an edge outside the list: %+v", n, got.Frames()[0])
	}
}

// speaksTLS reports whether the TLS fallback answers at all.
func speaksTLS(ctx context.Context, h *lab.Host, to netip.AddrPort) error {
	c, err := h.DialTCP(ctx, to)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	return tls.Client(c, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}).HandshakeContext(ctx)
}
