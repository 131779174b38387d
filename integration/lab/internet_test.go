//go:build linux

package lab

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// TestInternet builds a site of every kind and looks at how the hub sees it.
func TestInternet(t *testing.T) {
	l := ForTest(t)
	sites := []Site{{Name: "cloud", Hub: true}}
	for _, k := range Kinds() {
		sites = append(sites, Site{Name: fileName(k.Name), NATs: k.NATs, V6: k.V6})
	}
	sites = append(sites,
		Site{Name: "neighbour", Behind: "port-restricted"},
		Site{Name: "other-lan", Behind: "port-restricted", OwnLAN: true},
		Site{Name: "neighbour6", Behind: "IPv6", V6: true},
	)
	topo := Internet(l, InternetOptions{Sites: sites, Capture: true})
	hub := topo.Domains[0].Gateway()
	for _, a := range []netip.Addr{hub.IP, hub.addr(false)} {
		if _, err := hub.Serve(7000, a); err != nil {
			t.Fatal(err)
		}
	}
	ctx := ctxFor(t, 30*time.Second)
	for i, d := range topo.Domains[1:] {
		blocked := i < len(Kinds()) && Kinds()[i].Blocked
		for _, network := range []string{"tcp", "udp"} {
			if blocked && network == "udp" {
				continue
			}
			got, err := d.Gateway().WhoAmI(ctx, network, netip.AddrPortFrom(hub.IP, 7000))
			if err != nil || got != d.WANAddr() {
				t.Errorf("%s: the hub sees %s over %s, want %s, %v", d.Name, got, network, d.WANAddr(), err)
			}
		}
		own := d.Gateway().addr(false)
		if own.IsValid() != sites[i+1].V6 {
			t.Errorf("%s has the address %s", d.Name, own)
		}
		if !own.IsValid() {
			continue
		}
		if got, err := d.Gateway().WhoAmI(ctx, "udp", netip.AddrPortFrom(hub.addr(false), 7000)); err != nil || got != own {
			t.Errorf("%s: the hub sees %s, want %s, %v", d.Name, got, own, err)
		}
	}
	node := func(name string) *Node { return topo.Node(name + "-gw") }
	behind := node("port-restricted")
	for _, other := range []string{"neighbour", "other-lan"} {
		if _, err := node(other).Ping(ctx, behind.IP, PingOptions{}); err != nil {
			t.Errorf("%s to the site at the same router: %v", other, err)
		}
	}
	if a, b := behind.IP, node("random").IP; a != b {
		t.Errorf("sites have the nodes %s and %s, want one address", a, b)
	}
	if node("public").IP != topo.Domains[1].WANAddr() {
		t.Errorf("the public site has %s", node("public").IP)
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := node("neighbour6").Ping(short, node("IPv6").addr(false), PingOptions{}); err != nil {
		t.Errorf("IPv6 within a LAN: %v", err)
	}
}

func fileName(s string) string {
	b := []byte(s)
	for i := range b {
		if b[i] == ' ' {
			b[i] = '-'
		}
	}
	return string(b)
}

func TestInternetOfAgents(t *testing.T) {
	l := ForTest(t)
	topo := Internet(l, InternetOptions{Sites: []Site{
		{Name: "hub-a", Hub: true, Annotations: map[string]string{"corax.io/cost": "5"}},
		{Name: "hub-b", Hub: true},
		{Name: "edge", NATs: []NAT{{Mapping: MapCone}}},
	}})
	g := topo.Object(topo.Domains[0], map[string]string{"hub-a-gw": "K"})
	if g.ExposeType != "PublicIP" || g.Endpoints[0].UnderNAT || g.Endpoints[0].PublicIP != topo.Domains[0].WANAddr() || g.Annotations["corax.io/cost"] != "5" {
		t.Errorf("hub: %+v", g)
	}
	g = topo.Object(topo.Domains[2], nil)
	if g.ExposeType != "" || !g.Endpoints[0].UnderNAT || g.Endpoints[0].PublicIP.IsValid() {
		t.Errorf("edge: %+v", g)
	}
}

func TestShapedInternet(t *testing.T) {
	l := ForTest(t)
	topo := Internet(l, InternetOptions{Shaped: true, Sites: []Site{
		{Name: "hub", Hub: true},
		{Name: "edge", NATs: []NAT{{Mapping: MapKeepPort}}},
	}})
	h, link := topo.Domains[1].WANHost()
	h.Shape(link, LinkConfig{Out: Shape{Delay: 50 * time.Millisecond}})
	rtt, err := topo.Domains[1].Gateway().PingUntil(ctxFor(t, 10*time.Second), topo.Domains[0].Gateway().IP, PingOptions{})
	if err != nil || rtt < 50*time.Millisecond {
		t.Errorf("%v, %v", rtt, err)
	}
}

func TestKinds(t *testing.T) {
	var relayed []string
	kinds := Kinds()
	for i, a := range kinds {
		for _, b := range kinds[i:] {
			if a.Direct(b) != b.Direct(a) {
				t.Errorf("%s and %s disagree", a.Name, b.Name)
			}
			if !a.Direct(b) && !a.Blocked && !b.Blocked {
				relayed = append(relayed, a.Name+" "+b.Name)
			}
		}
	}
	want := []string{"sequential sequential", "sequential random", "sequential IPv6", "random random", "random IPv6"}
	if !slices.Equal(relayed, want) {
		t.Errorf("relayed: %q, want %q", relayed, want)
	}
}
