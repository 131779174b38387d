package main

import (
	"bytes"
	"path/filepath"
	"testing"
)

// sampleNetcheck is an edge behind a NAT that can be opened.
func sampleNetcheck() Netcheck {
	return Netcheck{
		Node: "edge-a-1", Gateway: "edge-a", MTU: 1408,
		IPv4: NetcheckFamily{
			Mapping: "endpoint-independent mapping", Filtering: "address and port-dependent filtering",
			Public: []string{"198.51.100.7:4500"}, PortPreserved: true, LifetimeSeconds: 150, Hairpin: "no",
		},
		IPv6: NetcheckFamily{Mapping: "unknown mapping", Filtering: "unknown filtering", Hairpin: "unknown", Blocked: true},
		Hubs: []NetcheckServer{
			{Gateway: "cloud", Node: "cloud-1", Address: "203.0.113.1:4500", Answered: true, RTTMillis: 12.345, Mapped: "198.51.100.7:4500", MTU: 1408},
			{Gateway: "cloud", Node: "cloud-1", Address: "[2001:db8::1]:4500"},
		},
		Servers: []NetcheckServer{{Address: "192.0.2.9:3478", Answered: true, RTTMillis: 31, Mapped: "198.51.100.7:4500"}},
		PortMapping: NetcheckPortMapping{
			Router: "192.168.1.1", PCP: true, UPnP: true, External: "198.51.100.7", Device: "Box\x1b]0;owned\a 7", Mapped: "198.51.100.7:4500",
			Text: "the router maps ports by PCP, UPnP IGD; its external address is 198.51.100.7",
		},
		TLS: []NetcheckTLS{
			{Hub: "cloud-1", Address: "203.0.113.1:10280", Open: true, RTTMillis: 40},
			{Hub: "cloud-2", Address: "203.0.113.2:10280", Error: "connection refused\nby it"},
		},
	}.complete()
}

func TestGoldenNetcheck(t *testing.T) {
	blocked := Netcheck{
		Node: "edge-d-1", Gateway: "edge-d", UDPBlocked: true,
		IPv4:        NetcheckFamily{Mapping: "unknown mapping", Blocked: true},
		Hubs:        []NetcheckServer{{Gateway: "cloud", Node: "cloud-1", Address: "203.0.113.1:4500"}},
		PortMapping: NetcheckPortMapping{Text: "no default router"},
	}.complete()
	for _, tt := range []struct {
		name string
		form output
		n    Netcheck
	}{
		{"cone-table", outputTable, sampleNetcheck()},
		{"cone-json", outputJSON, sampleNetcheck()},
		{"cone-yaml", outputYAML, sampleNetcheck()},
		{"blocked-table", outputTable, blocked},
		{"nothing-table", outputTable, Netcheck{Node: "n1"}.complete()},
		{"nothing-json", outputJSON, Netcheck{Node: "n1"}.complete()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got bytes.Buffer
			if err := writeNetcheck(&got, tt.form, tt.n); err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", "netcheck", tt.name+".golden"), got.Bytes())
		})
	}
}

func TestPortsText(t *testing.T) {
	for _, tt := range []struct {
		f    NetcheckFamily
		want string
	}{
		{NetcheckFamily{}, "-"},
		{NetcheckFamily{Mapping: "unknown mapping"}, "-"},
		{NetcheckFamily{Mapping: "no NAT", PortPreserved: true}, "-"},
		{NetcheckFamily{Mapping: "endpoint-independent mapping", PortPreserved: true}, "preserved"},
		{NetcheckFamily{Mapping: "endpoint-independent mapping"}, "not preserved"},
		{NetcheckFamily{Mapping: "address-dependent mapping", PortStep: 2}, "in steps of +2"},
		{NetcheckFamily{Mapping: "address and port-dependent mapping", PortStep: -1}, "in steps of -1"},
		{NetcheckFamily{Mapping: "address and port-dependent mapping"}, "not predictable"},
	} {
		n := Netcheck{IPv4: tt.f}.complete()
		if got := portsText(n.IPv4); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.f, got, tt.want)
		}
	}
}

func TestUDPText(t *testing.T) {
	open := NetcheckFamily{Public: []string{"198.51.100.7:4500"}}
	blocked := NetcheckFamily{Blocked: true}
	for _, tt := range []struct {
		n    Netcheck
		want string
	}{
		{Netcheck{}, "not known: there was no hub or STUN server to ask"},
		{Netcheck{UDPBlocked: true, IPv4: blocked, IPv6: blocked}, "blocked: no server answered"},
		{Netcheck{IPv4: open}, "open over IPv4"},
		{Netcheck{IPv4: blocked, IPv6: open}, "blocked over IPv4, open over IPv6"},
		{Netcheck{IPv4: open, IPv6: open}, "open over IPv4, open over IPv6"},
	} {
		if got := udpText(tt.n); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}
