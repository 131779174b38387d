//go:build linux

package tunnel_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"corax/integration/lab"
)

const domainPort = 7310

// TestSameDomainTrafficStaysOut: what goes on inside one domain is no business
// of an agent. No such frame is on any corax0 or in any VXLAN packet, and no
// agent counts a packet.
func TestSameDomainTrafficStaysOut(t *testing.T) {
	topo := lab.Standard(lab.ForTest(t), lab.Options{
		Edges: 1,
		Node:  func(c *lab.NodeConfig) { c.Masquerade = lab.MasqLeavingNode },
	})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for _, n := range topo.Nodes() {
		if _, err := n.Serve(domainPort, n.IP); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Pods[0].Serve(domainPort); err != nil {
			t.Fatal(err)
		}
	}
	service := lab.Service{IP: netip.MustParseAddr("10.96.0.5"), Port: 80, Protocol: lab.TCP}
	edge := topo.Domains[1]
	for _, n := range edge.Nodes {
		service.Backends = append(service.Backends, netip.AddrPortFrom(n.Pods[0].IP, domainPort))
	}
	for _, n := range edge.Nodes {
		n.AddService(service)
	}
	if err := topo.Start(ctx); err != nil {
		t.Fatal(err)
	}

	seen := watchDomains(t, topo)
	before := packetCounters(ctx, t, topo)
	sends := 0
	for _, d := range topo.Domains {
		sends += talk(ctx, t, d)
	}
	for _, n := range edge.Nodes {
		for _, h := range []*lab.Host{n.Host, n.Pods[0].Host} {
			if _, err := h.Transfer(ctx, netip.AddrPortFrom(service.IP, 80), 100<<10); err != nil {
				t.Error(err)
			}
		}
	}
	if sends < 100 {
		t.Errorf("only %d conversations", sends)
	}
	seen.wantNone(t)
	if diff := cmp.Diff(before, packetCounters(ctx, t, topo)); diff != "" {
		t.Errorf("counters of the agents (-before +after):\n%s", diff)
	}

	// The watch sees what it is for.
	if _, err := edge.Nodes[1].Pods[0].PingUntil(ctx, topo.Domains[0].Nodes[1].Pods[0].IP, lab.PingOptions{}); err != nil {
		t.Fatal(err)
	}
	if seen.other() == 0 {
		t.Error("captured nothing of a ping to another domain")
	}
	if cmp.Equal(before, packetCounters(ctx, t, topo)) {
		t.Error("no agent counted a ping to another domain")
	}
}

// talk lets every pod and node of a domain talk to all the others, and returns
// how many conversations that were.
func talk(ctx context.Context, t *testing.T, d *lab.Domain) (n int) {
	t.Helper()
	for _, from := range d.Nodes {
		for _, h := range []*lab.Host{from.Host, from.Pods[0].Host} {
			for _, to := range d.Nodes {
				for _, a := range []netip.Addr{to.Pods[0].IP, to.Pods[0].IP6, to.IP} {
					at := netip.AddrPortFrom(a, domainPort)
					if _, err := h.Ping(ctx, a, lab.PingOptions{}); err != nil {
						t.Error(err)
					}
					if _, err := h.Transfer(ctx, at, 100<<10); err != nil {
						t.Error(err)
					}
					if _, err := h.EchoUDP(ctx, at, 1000); err != nil {
						t.Error(err)
					}
					n += 3
				}
			}
		}
	}
	return n
}

// domainWatch captures on the ways into the agents of all nodes.
type domainWatch struct {
	captures []*lab.Capture
	inside   []*lab.Capture // what belongs to one domain
}

func watchDomains(t *testing.T, topo *lab.Topology) *domainWatch {
	t.Helper()
	w := &domainWatch{}
	for _, d := range topo.Domains {
		var own []netip.Prefix
		for _, n := range d.Nodes {
			own = append(own, n.Subnets...)
			own = append(own, netip.PrefixFrom(n.IP, n.IP.BitLen()))
		}
		in := func(a netip.Addr) bool {
			return slices.ContainsFunc(own, func(p netip.Prefix) bool { return p.Contains(a) })
		}
		for _, n := range d.Nodes {
			for link, inner := range map[string]func(lab.Frame) (src, dst netip.Addr){
				"corax0": func(f lab.Frame) (src, dst netip.Addr) { return f.Src, f.Dst },
				"eth0":   insideVXLAN,
			} {
				all, err := n.Capture(link, func(f lab.Frame) bool {
					src, dst := inner(f)
					return src.Is4() || dst.Is4()
				})
				if err != nil {
					t.Fatal(err)
				}
				bad, err := n.Capture(link, func(f lab.Frame) bool {
					src, dst := inner(f)
					return in(src) && in(dst)
				})
				if err != nil {
					t.Fatal(err)
				}
				w.captures, w.inside = append(w.captures, all), append(w.inside, bad)
			}
		}
	}
	return w
}

// insideVXLAN returns the inner addresses of a VXLAN packet; zero for others.
func insideVXLAN(f lab.Frame) (src, dst netip.Addr) {
	const headers = 14 + 20 + 8 + 8 + 14 // outer Ethernet, IPv4, UDP, VXLAN, inner Ethernet
	if f.SrcPort != 4472 && f.DstPort != 4472 || len(f.Data) < headers+40 || !f.Src.Is4() {
		return src, dst
	}
	p := f.Data[headers:]
	switch binary.BigEndian.Uint16(f.Data[headers-2:]) {
	case 0x0800:
		return netip.AddrFrom4([4]byte(p[12:])), netip.AddrFrom4([4]byte(p[16:]))
	case 0x86dd:
		return netip.AddrFrom16([16]byte(p[8:])), netip.AddrFrom16([16]byte(p[24:]))
	}
	return src, dst
}

func (w *domainWatch) wantNone(t *testing.T) {
	t.Helper()
	for _, c := range w.inside {
		if n, lost := c.Count(), c.Lost(); n != 0 || lost != 0 {
			t.Errorf("%s %s: %d frames of one domain, %d lost", c.Host.Name, c.Link, n, lost)
		}
	}
	if n := w.other(); n != 0 {
		t.Errorf("%d IPv4 frames in all, want none", n)
	}
}

// other counts every IPv4 packet on the watched ways.
func (w *domainWatch) other() (n int) {
	for _, c := range w.captures {
		n += c.Count()
	}
	return n
}

// packetCounters returns what the agents count of the packets of pods and host
// programs. What the kernel sends by itself, multicast, is left out, and so are
// the pings from agent to agent.
func packetCounters(ctx context.Context, t *testing.T, topo *lab.Topology) map[string]float64 {
	t.Helper()
	all := make(map[string]float64)
	for _, n := range topo.Nodes() {
		text, err := scrape(ctx, n)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for line := range strings.Lines(text) {
			name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
			pings := strings.Contains(name, `"netstack"`) || strings.Contains(name, `"vxlan"`) || strings.Contains(name, `"wireguard"`)
			if !ok || pings || strings.Contains(name, `"multicast"`) {
				continue
			}
			if strings.HasPrefix(name, "corax_fabric_") || strings.Contains(name, "_drop_total") {
				v, err := strconv.ParseFloat(value, 64)
				if err != nil {
					t.Fatal(err)
				}
				all[n.Name+" "+name] = v
				found++
			}
		}
		if found < 10 {
			t.Fatalf("%s shows %d counters", n.Name, found)
		}
	}
	return all
}

func scrape(ctx context.Context, n *lab.Node) (string, error) {
	transport := &http.Transport{DialContext: n.Dial, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/metrics", netip.AddrPortFrom(n.IP, 10283)), nil)
	if err != nil {
		return "", err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}
