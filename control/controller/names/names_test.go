package names_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"corax/control/api/v1beta1"
	"corax/control/controller/names"
)

func TestHosts(t *testing.T) {
	ip := netip.MustParseAddr
	front := ip("10.96.0.7")
	for _, tt := range []struct {
		name     string
		nodes    []names.Node
		front    netip.Addr
		want     string
		problems int
	}{
		{"none", nil, front, "", 0},
		{
			"edge and cloud",
			[]names.Node{{Name: "edge-1", Addr: ip("192.168.0.10"), Edge: true}, {Name: "cloud-1", Addr: ip("10.0.0.1")}},
			front, "10.0.0.1\tcloud-1\n10.96.0.7\tedge-1\n", 0,
		},
		{
			"the proxy is off",
			[]names.Node{{Name: "edge-1", Addr: ip("192.168.0.10"), Edge: true}, {Name: "cloud-1", Addr: ip("10.0.0.1")}},
			netip.Addr{},
			"10.0.0.1\tcloud-1\n192.168.0.10\tedge-1\n", 0,
		},
		{
			"same address at two sites",
			[]names.Node{{Name: "a", Addr: ip("192.168.0.10"), Edge: true}, {Name: "b", Addr: ip("192.168.0.10"), Edge: true}},
			front, "10.96.0.7\ta\n10.96.0.7\tb\n", 0,
		},
		{
			"a Hostname of its own",
			[]names.Node{{Name: "edge-1", Hostname: "Edge-1.example.org", Addr: ip("192.168.0.10"), Edge: true}},
			front, "10.96.0.7\tedge-1\n10.96.0.7\tedge-1.example.org\n", 0,
		},
		{"the node name in capitals", []names.Node{{Name: "edge-1", Hostname: "EDGE-1", Addr: ip("10.0.0.1")}}, front, "10.0.0.1\tedge-1\n", 0},
		{"a Hostname that is an address", []names.Node{{Name: "edge-1", Hostname: "192.168.0.10", Addr: ip("10.0.0.1")}}, front, "10.0.0.1\tedge-1\n", 0},
		{"a Hostname that is no name", []names.Node{{Name: "edge-1", Hostname: "a b\n1.2.3.4\tc", Addr: ip("10.0.0.1")}}, front, "10.0.0.1\tedge-1\n", 0},
		{"IPv6", []names.Node{{Name: "edge-1", Addr: ip("2001:db8::1")}}, front, "2001:db8::1\tedge-1\n", 0},
		{"without address, behind the proxy", []names.Node{{Name: "edge-1", Edge: true}}, front, "10.96.0.7\tedge-1\n", 0},
		{"without address", []names.Node{{Name: "cloud-1"}}, front, "", 0},
		{
			"another node's name",
			[]names.Node{{Name: "a", Hostname: "b", Addr: ip("10.0.0.1")}, {Name: "b", Addr: ip("10.0.0.2")}},
			front, "10.0.0.1\ta\n10.0.0.2\tb\n", 1,
		},
		{
			"two with one Hostname",
			[]names.Node{{Name: "b", Hostname: "x", Addr: ip("10.0.0.2")}, {Name: "a", Hostname: "x", Addr: ip("10.0.0.1")}},
			front, "10.0.0.1\ta\n10.0.0.1\tx\n10.0.0.2\tb\n", 1,
		},
		{"the cluster's own names", []names.Node{
			{Name: "a", Hostname: "localhost", Addr: ip("10.0.0.1")},
			{Name: "b", Hostname: "kubernetes.default.svc", Addr: ip("10.0.0.2")},
			{Name: "c", Hostname: "webhook.kube-system.svc", Addr: ip("10.0.0.3")},
			{Name: "d", Hostname: "x.svc.cluster.local", Addr: ip("10.0.0.4")},
		}, front, "10.0.0.1\ta\n10.0.0.2\tb\n10.0.0.3\tc\n10.0.0.4\td\n", 4},
		{"nodes with the cluster's own names", []names.Node{
			{Name: "kubernetes.default.svc", Addr: ip("10.0.0.1"), Edge: true},
			{Name: "localhost", Hostname: "x", Addr: ip("10.0.0.2")},
		}, front, "10.0.0.2\tx\n", 2},
		{"names of a domain", []names.Node{
			{Name: "a", Hostname: "login.example.com", Addr: ip("10.0.0.1"), Edge: true},
			{Name: "b.site", Hostname: "B.example.com", Addr: ip("10.0.0.2")},
			{Name: "c", Hostname: "box-7", Addr: ip("10.0.0.3")},
		}, front, "10.0.0.2\tb.example.com\n10.0.0.2\tb.site\n10.0.0.3\tbox-7\n10.0.0.3\tc\n10.96.0.7\ta\n", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, problems := names.Hosts(tt.nodes, tt.front)
			if diff := cmp.Diff(tt.want, got); diff != "" || len(problems) != tt.problems {
				t.Errorf("%s %q", diff, problems)
			}
		})
	}
}

// FuzzHosts checks that no Hostname makes a line of its own, or one of another
// node's name.
func FuzzHosts(f *testing.F) {
	f.Add("edge-1.example.org", "b")
	f.Add("x\n1.2.3.4\tkubernetes", "KUBERNETES.default")
	f.Fuzz(func(t *testing.T, a, b string) {
		addr := netip.MustParseAddr("10.0.0.1")
		text, _ := names.Hosts([]names.Node{
			{Name: "node-a", Hostname: a, Addr: addr}, {Name: "node-b", Hostname: b, Addr: addr, Edge: true},
		}, netip.MustParseAddr("10.96.0.7"))
		if n := strings.Count(text, "\n"); n < 2 || n > 4 {
			t.Fatalf("%d lines: %q", n, text)
		}
		seen := map[string]bool{}
		for line := range strings.Lines(text) {
			ip, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
			if _, err := netip.ParseAddr(ip); err != nil || !ok || name == "" || strings.ContainsAny(name, " \t#") || seen[strings.ToLower(name)] {
				t.Fatalf("line %q of %q", line, text)
			}
			if strings.HasPrefix(name, "localhost") || strings.Contains(name, ".svc") && strings.HasSuffix(name, ".svc") {
				t.Fatalf("a node took the name %q", name)
			}
			seen[strings.ToLower(name)] = true
		}
	})
}

// gw makes an exposed Gateway unless its name begins with "edge".
func gw(name, https, http, ports string) v1beta1.Gateway {
	g := v1beta1.Gateway{Metadata: v1beta1.ObjectMeta{Name: name}}
	if !strings.HasPrefix(name, "edge") {
		g.Spec.ExposeType = v1beta1.ExposePublicIP
	}
	g.Spec.ProxyConfig = &v1beta1.ProxyConfiguration{Replicas: 1, ProxyHTTPSPort: https, ProxyHTTPPort: http}
	if ports != "" {
		g.Metadata.Annotations = map[string]string{v1beta1.AnnotationProxyPorts: ports}
	}
	return g
}

func TestMapPorts(t *testing.T) {
	var nine []string
	for i := range 9 {
		nine = append(nine, fmt.Sprint(9100+i))
	}
	for _, tt := range []struct {
		name     string
		gateways []v1beta1.Gateway
		tls      string
		http     []uint16
		problems []string
	}{
		{"no Gateway", nil, "10250=10281", nil, nil},
		{"nothing listed", []v1beta1.Gateway{gw("cloud", "", "", "")}, "10250=10281", nil, nil},
		{
			"in order",
			[]v1beta1.Gateway{gw("cloud", "10250, 9100,9101", "10255,9445", "")},
			"10250=10281,9100=10285,9101=10286",
			[]uint16{9445, 10255},
			nil,
		},
		{
			"two list the same",
			[]v1beta1.Gateway{gw("b", "9100", "10255", ""), gw("a", "9101,9100", "10255", "")},
			"10250=10281,9101=10285,9100=10286",
			[]uint16{10255},
			nil,
		},
		{
			"exposed ones first",
			[]v1beta1.Gateway{gw("edge-a", "9200", "", ""), gw("z", "9100", "", "")},
			"10250=10281,9100=10285,9200=10286", nil, nil,
		},
		{
			"a port keeps its front",
			[]v1beta1.Gateway{gw("cloud", "9101,9100,9099", "", "10250=10281,9100=10285,9101=10287")},
			"10250=10281,9100=10285,9099=10286,9101=10287", nil, nil,
		},
		{
			"a front becomes free",
			[]v1beta1.Gateway{gw("cloud", "9101,9200", "", "10250=10281,9100=10285,9101=10286")},
			"10250=10281,9200=10285,9101=10286", nil, nil,
		},
		{
			"annotations that differ",
			[]v1beta1.Gateway{gw("a", "9100,9101", "", "9100=10286"), gw("b", "", "", "9100=10287,9101=10286")},
			"10250=10281,9101=10285,9100=10286", nil, nil,
		},
		{
			"annotations with nonsense",
			[]v1beta1.Gateway{gw("a", "9100,9101", "", "9100=80,9101=10281,10250=10285,x")},
			"10250=10281,9100=10285,9101=10286", nil, nil,
		},
		{
			"an annotation of one that is not exposed",
			[]v1beta1.Gateway{gw("edge-a", "9100", "", "9100=10290")},
			"10250=10281,9100=10285", nil, nil,
		},
		{
			"too many",
			[]v1beta1.Gateway{gw("cloud", strings.Join(nine, ","), "", "")},
			"10250=10281,9100=10285,9101=10286,9102=10287,9103=10288,9104=10289,9105=10290,9106=10291,9107=10292", nil,
			[]string{"cloud: TLS port 9108 is not served: there are 8 fronts for ports other than the kubelet's, and all are given"},
		},
		{
			"HTTP and TLS",
			[]v1beta1.Gateway{gw("a", "9100", "", ""), gw("b", "", "9100,10250,9101", "")},
			"10250=10281,9100=10285",
			[]uint16{9101},
			[]string{"b: port 9100 is listed for plain HTTP and for TLS; only TLS is served", "b: port 10250 is listed for plain HTTP and for TLS; only TLS is served"},
		},
		{
			"garbage",
			[]v1beta1.Gateway{gw("cloud", "9100,x", "0", "")},
			"10250=10281,9100=10285", nil,
			[]string{`cloud: proxyHTTPSPort: not a port: "x"`, `cloud: proxyHTTPPort: not a port: "0"`},
		},
		{"without the proxy", []v1beta1.Gateway{func() v1beta1.Gateway {
			g := gw("cloud", "9100", "", "")
			g.Spec.ProxyConfig.Replicas = 0
			return g
		}()}, "10250=10281", nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, problems := names.MapPorts(tt.gateways)
			var texts []string
			for _, p := range problems {
				texts = append(texts, p.Gateway+": "+p.Text)
			}
			if m.String() != tt.tls || !slices.Equal(m.HTTP, tt.http) {
				t.Errorf("%s, %v", m, m.HTTP)
			}
			if diff := cmp.Diff(tt.problems, texts); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// FuzzMapPorts checks that ports and fronts pair off, that the annotation reads
// back, and that a port never changes its front while it is listed.
func FuzzMapPorts(f *testing.F) {
	f.Add("9100,9101", "10255", "9100=10286", "9101,9200", "9100")
	f.Add("1,2,3,4,5,6,7,8,9", "", "", "10250,9,8", "1,2")
	f.Fuzz(func(t *testing.T, https, http, note, other, later string) {
		gateways := []v1beta1.Gateway{gw("cloud", https, http, note), gw("edge-a", other, "", "")}
		m, _ := names.MapPorts(gateways)
		back, err := v1beta1.ParsePortMap(m.String())
		if err != nil || !cmp.Equal(back, m.TLS) || m.TLS[names.PortKubelet] != names.FrontKubelet {
			t.Fatalf("%s: %v, %v", m, back, err)
		}
		fronts := map[uint16]bool{}
		for port, front := range m.TLS {
			if fronts[front] || port != names.PortKubelet && (front < names.FrontFirst || front > names.FrontLast) {
				t.Fatalf("front %d in %s", front, m)
			}
			fronts[front] = true
			if slices.Contains(m.HTTP, port) {
				t.Fatalf("port %d twice", port)
			}
		}
		if len(m.TLS)+len(m.HTTP) > 100 {
			t.Fatal("too many ports")
		}
		gateways[0] = gw("cloud", later+","+https, http, m.String())
		again, _ := names.MapPorts(gateways)
		for port, front := range m.TLS {
			if again.TLS[port] != front {
				t.Fatalf("port %d moved from %d to %d", port, front, again.TLS[port])
			}
		}
	})
}
