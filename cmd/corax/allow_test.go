package main

import (
	"net/netip"
	"strings"
	"testing"

	"corax/dataplane"
)

// TestNamesOfOthers: who owns a hub's name neither has packets for the tunnel go
// into the tunnel, nor opens an allow list to everybody.
func TestNamesOfOthers(t *testing.T) {
	a := &agent{resolver: newResolver(func() {})}
	config := dataplane.Config{
		Peers: []dataplane.Peer{
			{Node: "c1", EndpointHost: "good.example", EndpointPort: 4500},
			{Node: "c2", EndpointHost: "bad.example", EndpointPort: 4500},
		},
		Forbidden: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
		Allow:     &dataplane.Allow{Hosts: []string{"many.example"}},
	}
	a.resolve(config)
	var many []netip.Addr
	for i := range 100 {
		many = append(many, netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}))
	}
	a.resolver.store("good.example", []netip.Addr{netip.MustParseAddr("203.0.113.7")}, nil)
	a.resolver.store("bad.example", []netip.Addr{netip.MustParseAddr("10.244.1.7")}, nil)
	a.resolver.store("many.example", many, nil)

	problems := a.resolve(config)
	if got := config.Peers[0].Endpoint.String(); got != "203.0.113.7:4500" {
		t.Errorf("the endpoint of c1 is %s", got)
	}
	if config.Peers[1].Endpoint.IsValid() || len(problems) != 1 || !strings.Contains(problems[0], "10.244.1.0/24") {
		t.Errorf("the endpoint of c2 is %s; problems %q", config.Peers[1].Endpoint, problems)
	}
	if got := len(a.published(config.Allow)); got != maxNamed {
		t.Errorf("%d addresses of one name are let in", got)
	}
}
