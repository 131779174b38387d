package main

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"corax/control"
	"corax/proxy/front"
)

func TestFrontPlan(t *testing.T) {
	at := netip.MustParseAddrPort
	ip := netip.MustParseAddr
	base := func(change func(*agentConfig)) *agentConfig {
		cfg := defaults()
		if change != nil {
			change(&cfg)
		}
		return &cfg
	}
	nodes := []control.ProxyNode{{Name: "edge-1", Gateway: "a", IP: ip("192.168.1.10"), Ports: []uint16{10250}, HTTP: []uint16{9101}, HTTPS: []uint16{9100}}}
	fronts := []front.Node{{Name: "edge-1", IP: ip("192.168.1.10"), Ports: []uint16{10250}, PlainPorts: []uint16{9101}, TLSPorts: []uint16{9100}}}
	tls := []front.TLSListener{{Addr: at("10.0.0.4:10281"), Port: 10250}}
	http := []netip.AddrPort{at("10.0.0.4:10282")}
	for _, tt := range []struct {
		name string
		cfg  *agentConfig
		plan control.Proxy
		want front.Plan
	}{
		{"off", base(nil), control.Proxy{}, front.Plan{End: true}},
		{"no front any more", base(nil), control.Proxy{Nodes: nodes, Edge: true}, front.Plan{}},
		{
			"front", base(nil),
			control.Proxy{Front: true, Nodes: nodes, PortMap: map[uint16]uint16{10281: 10250}},
			front.Plan{TLS: tls, HTTP: http, Nodes: fronts},
		},
		{
			"further TLS ports", base(nil),
			control.Proxy{Front: true, Nodes: nodes, PortMap: map[uint16]uint16{10286: 9445, 10281: 10250, 10285: 9100}},
			front.Plan{
				TLS:  append(tls[:1:1], front.TLSListener{Addr: at("10.0.0.4:10285"), Port: 9100}, front.TLSListener{Addr: at("10.0.0.4:10286"), Port: 9445}),
				HTTP: http, Nodes: fronts,
			},
		},
		{
			"OpenYurt's ports", base(func(c *agentConfig) { c.ProxyTLSAddr, c.ProxyHTTPAddr = at("10.0.0.4:10263"), at("10.0.0.4:10264") }),
			control.Proxy{Front: true, Nodes: nodes, PortMap: map[uint16]uint16{10281: 10250}},
			front.Plan{TLS: []front.TLSListener{{Addr: at("10.0.0.4:10263"), Port: 10250}}, HTTP: []netip.AddrPort{at("10.0.0.4:10264")}, Nodes: fronts},
		},
		{
			"listeners off", base(func(c *agentConfig) { c.ProxyTLSAddr, c.ProxyHTTPAddr = netip.AddrPort{}, netip.AddrPort{} }),
			control.Proxy{Front: true, Nodes: nodes, PortMap: map[uint16]uint16{10281: 10250, 10285: 9100}},
			front.Plan{Nodes: fronts},
		},
		{
			"CONNECT", base(func(c *agentConfig) {
				c.Front.ConnectCert, c.Front.ConnectKey, c.Front.ConnectClientCA, c.Front.ConnectSocket = "c", "k", "ca", "/run/c.sock"
			}),
			control.Proxy{Front: true, Nodes: nodes},
			front.Plan{TLS: tls, HTTP: http, Nodes: fronts, Connect: []netip.AddrPort{at("10.0.0.4:10295")}, ConnectSocket: "/run/c.sock"},
		},
		{
			"CONNECT without certificate", base(func(c *agentConfig) { c.Front.ConnectAddr = at("10.0.0.4:10295") }),
			control.Proxy{Front: true, Nodes: nodes},
			front.Plan{TLS: tls, HTTP: http, Nodes: fronts},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, frontPlan(tt.cfg, tt.plan), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestHostsFileSetting(t *testing.T) {
	for hosts, want := range map[string]string{"auto": "/var/lib/corax/hosts", "off": "", "": "", "/etc/corax/hosts": "/etc/corax/hosts"} {
		c := defaults()
		c.Front.Hosts = hosts
		if got := c.hostsFile(); got != want {
			t.Errorf("%q: %q, want %q", hosts, got, want)
		}
	}
}
