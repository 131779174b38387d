//go:build linux

package lab

import (
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"time"
)

// TestPodInMovedSubnet moves a subnet, with the address of its pod, from one node
// to another.
func TestPodInMovedSubnet(t *testing.T) {
	_, nodes := twoNodes(t, nil)
	ctx := ctxFor(t, 20*time.Second)
	moved := prefixes("10.244.9.0/24", "fd00:10:244:9::/64")
	for i, n := range nodes {
		pod := n.PodIn("moved", moved...)
		if !moved[0].Contains(pod.IP) || !moved[1].Contains(pod.IP6) {
			t.Fatalf("the pod has %s and %s", pod.IP, pod.IP6)
		}
		if _, err := pod.Serve(uint16(7000 + i)); err != nil {
			t.Fatal(err)
		}
		client := nodes[1-i]
		for _, s := range moved {
			client.Route(Route{Dst: s, Via: n.addr(s.Addr().Is4())})
		}
		for _, ip := range []netip.Addr{pod.IP, pod.IP6} {
			if _, err := client.Pods[0].EchoTCP(ctx, netip.AddrPortFrom(ip, uint16(7000+i)), 100); err != nil {
				t.Error(err)
			}
		}
		n.LeavePods(moved...)
		if gw := moved[0].Addr().Next(); n.linkAddr(CNIBridge, true) == gw {
			t.Errorf("%s still has %s", n, gw)
		}
	}
}

func TestDelLink(t *testing.T) {
	h := ForTest(t).Host("h")
	if err := addBridge(h.Netlink(), "br0", 1500); err != nil {
		t.Fatal(err)
	}
	h.DelLink("br0")
	if _, err := h.Netlink().LinkByName("br0"); err == nil {
		t.Error("the link is still there")
	}
}

func TestMetrics(t *testing.T) {
	h := ForTest(t).Host("h")
	ip := netip.MustParseAddr("192.168.1.10")
	h.AddAddr("lo", netip.PrefixFrom(ip, 32))
	ln, err := h.ListenTCP(netip.AddrPortFrom(ip, metricsPort))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "# HELP go_goroutines Number.\ngo_goroutines 23\npeer_up{node=\"a\"} 1\nrss 1.5e+07\n")
	})}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	a := &Agent{Host: h, cfg: AgentConfig{NodeIP: ip}}
	got, err := a.Metrics(ctxFor(t, 10*time.Second))
	if err != nil || len(got) != 2 || got["go_goroutines"] != 23 || got["rss"] != 1.5e7 {
		t.Errorf("%v, %v", got, err)
	}
}
