package front

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"corax/proxy"
)

// known are the nodes of route tests.
func known(host string) (string, bool) {
	n, ok := map[string]string{"edge1": "Edge1", "host1": "Edge1", "edge2": "edge2"}[strings.ToLower(host)]
	return n, ok
}

func TestRoute(t *testing.T) {
	const own = 10282
	for _, c := range []struct {
		name string
		n    naming
		want route
		err  string
	}{
		{"Host", naming{host: "edge1:9100"}, route{"edge1", 9100}, ""},
		{"Host without port", naming{host: "edge1"}, route{"edge1", 0}, ""},
		{"Host is the front", naming{host: "10.1.1.1:10282", query: "edge1"}, route{"edge1", 0}, ""},
		{"query", naming{host: "svc:9100", query: "edge1"}, route{"edge1", 9100}, ""},
		{"headers", naming{host: "svc:10282", node: "edge1", dest: "10.0.0.5:9445"}, route{"edge1", 9445}, ""},
		{"header with port", naming{host: "svc", node: "edge1:9445"}, route{"edge1", 9445}, ""},
		{"only the port as header", naming{host: "edge1:9100", dest: "1.2.3.4:9445"}, route{"edge1", 9445}, ""},
		{"same node thrice", naming{host: "host1:1", node: "EDGE1", query: "edge1"}, route{"EDGE1", 1}, ""},
		{"header and Host differ", naming{host: "edge2:9100", node: "edge1"}, route{}, "two nodes"},
		{"header and query differ", naming{host: "svc:9100", node: "edge1", query: "edge2"}, route{}, "two nodes"},
		{"query and Host differ", naming{host: "edge2:9100", query: "host1"}, route{}, "two nodes"},
		{"destination without port", naming{host: "svc", node: "edge1", dest: "10.0.0.5"}, route{}, "has no port"},
		{"destination that is none", naming{host: "svc", node: "edge1", dest: "http://x:1"}, route{}, "host"},
		{"header that is none", naming{host: "svc:1", node: "edge1/../x"}, route{}, "not a name"},
		{"query that is none", naming{host: "svc:1", query: "a@edge1"}, route{}, "not a name"},
		{"no Host", naming{node: "edge1:1"}, route{}, "empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.n.route(own, known)
			if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%+v, %v, want %+v, %q", got, err, c.want, c.err)
			}
		})
	}
}

func TestTakeQuery(t *testing.T) {
	for _, c := range []struct {
		raw, node, rest string
		ok              bool
	}{
		{"", "", "", true},
		{"a=b", "", "a=b", true},
		{"a=%2F&b", "", "a=%2F&b", true},
		{"nodeName=edge1", "edge1", "", true},
		{"a=b&nodeName=edge1&c", "edge1", "a=b&c", true},
		{"node%4eame=edge1", "edge1", "", true},
		{"nodeName=edge%31", "edge1", "", true},
		{"NodeName=edge1", "", "NodeName=edge1", true},
		{"a=nodeName", "", "a=nodeName", true},
		{"nodeName=", "", "", true},
		{"nodeName=a&nodeName=a", "", "", false},
		{"nodeName=a&node%4eame=b", "", "", false},
		{"nodeName=%zz", "", "", false},
	} {
		node, rest, err := takeQuery(c.raw)
		if node != c.node || rest != c.rest || (err == nil) != c.ok {
			t.Errorf("%q: %q, %q, %v", c.raw, node, rest, err)
		}
	}
}

func TestAccess(t *testing.T) {
	for _, c := range []struct {
		method, path string
		upgrade      bool
		want         string
	}{
		{"GET", "/metrics", false, "get metrics"},
		{"HEAD", "/metrics", false, "get metrics"},
		{"GET", "/metrics/cadvisor", false, "get metrics"},
		{"GET", "/metrics?x=/exec", false, "get metrics"},
		{"POST", "/metrics", false, "create proxy"},
		{"GET", "/metrics", true, "create proxy"},
		{"GET", "/metricsx", false, "get proxy"},
		{"GET", "//metrics", false, "get proxy"},
		{"GET", "/metrics/", false, "get proxy"},
		{"GET", "/metrics//x", false, "get proxy"},
		{"GET", "/metrics/../exec/a/b/c", false, "get proxy"},
		{"GET", "/metrics/./x", false, "get proxy"},
		{"GET", "/metrics/%2e%2e/exec", false, "get proxy"},
		{"GET", "/metrics/..%2fexec", false, "get proxy"},
		{"GET", "/metrics/..;/exec", false, "get proxy"},
		{"GET", "/metrics/..%5cexec", false, "get proxy"},
		{"GET", "/Metrics", false, "get proxy"},
		{"GET", "/", false, "get proxy"},
		{"GET", "/exec/ns/pod/c", false, "get proxy"},
		{"GET", "/exec/ns/pod/c", true, "create proxy"},
		{"PUT", "/x", false, "update proxy"},
		{"PATCH", "/x", false, "patch proxy"},
		{"DELETE", "/x", false, "delete proxy"},
		{"OPTIONS", "/x", false, "create proxy"},
		{"get", "/metrics", false, "create proxy"},
	} {
		u, err := url.ParseRequestURI(c.path)
		if err != nil {
			t.Fatal(err)
		}
		a := access(c.method, u, c.upgrade, "edge1")
		if got := a.Verb + " " + a.Subresource; got != c.want || a.Node != "edge1" {
			t.Errorf("%s %s, upgrade %v: %s, want %s", c.method, c.path, c.upgrade, got, c.want)
		}
	}
}

func TestUpgradeOf(t *testing.T) {
	for _, c := range []struct {
		connection, upgrade []string
		want                string
		ok                  bool
	}{
		{nil, nil, "", true},
		{[]string{"keep-alive"}, nil, "", true},
		{nil, []string{"websocket"}, "", true},
		{[]string{"Upgrade"}, []string{"websocket"}, "websocket", true},
		{[]string{"keep-alive, upgrade"}, []string{"WebSocket"}, "WebSocket", true},
		{[]string{"keep-alive", "Upgrade"}, []string{"SPDY/3.1"}, "SPDY/3.1", true},
		{[]string{"Upgrade"}, nil, "", false},
		{[]string{"Upgrade"}, []string{"h2c"}, "", false},
		{[]string{"Upgrade, HTTP2-Settings"}, []string{"h2c"}, "", false},
		{[]string{"Upgrade"}, []string{"websocket, h2c"}, "", false},
		{[]string{"Upgrade"}, []string{"websocket", "h2c"}, "", false},
		{[]string{"Upgrade"}, []string{"TLS/1.0"}, "", false},
	} {
		got, err := upgradeOf(http.Header{"Connection": c.connection, "Upgrade": c.upgrade})
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%q %q: %q, %v", c.connection, c.upgrade, got, err)
		}
	}
}

// routing is a front that knows nodes and runs nothing.
func routing(t testing.TB) *Front {
	f, err := New(Config{
		Dialer: &nodes{at: map[proxy.Target]string{}}, Live: proxy.NewLive(proxy.Limits{}), Counters: new(proxy.Counters),
		Names: func(h string) (string, bool) {
			n, ok := map[string]string{"host1": "Edge1", "10.9.9.9": "edge2", "127.0.0.1": "no-such-node"}[h]
			return n, ok
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := plan()
	p.Nodes = append(p.Nodes, node("evil", "169.254.169.254", p.Nodes[0].Ports), node("third", "10.0.0.5", nil), node("loop", "127.0.0.2", p.Nodes[0].Ports))
	f.Apply(p)
	return f
}

// TestTarget shows that nothing but a node can be asked for.
func TestTarget(t *testing.T) {
	f := routing(t)
	for _, c := range []struct {
		host string
		port uint16
		want string
		code proxy.Code
	}{
		{"edge1", 10250, "Edge1:10250", 0},
		{"EDGE1.", 10250, "Edge1:10250", 0},
		{"edge1..", 10250, "", proxy.CodeUnknownNode},
		{"host1", 9100, "Edge1:9100", 0},
		{"10.9.9.9", 9100, "edge2:9100", 0}, // a Hostname address that is an IP
		{"10.0.0.7", 9100, "edge3.example.org:9100", 0},
		{"::ffff:10.0.0.7", 9100, "edge3.example.org:9100", 0},
		{"10.0.0.5", 9100, "", proxy.CodeUnknownNode}, // two nodes have it
		{"10.0.0.6", 9100, "", proxy.CodeUnknownNode},
		{"edge1", 22, "", proxy.CodePort},
		{"edge1", 0, "", proxy.CodePort},
		{"localhost", 10250, "", proxy.CodeUnknownNode},
		{"127.0.0.1", 10250, "", proxy.CodeUnknownNode},
		{"127.0.0.2", 10250, "", proxy.CodeUnknownNode},
		{"::1", 10250, "", proxy.CodeUnknownNode},
		{"0.0.0.0", 10250, "", proxy.CodeUnknownNode},
		{"169.254.169.254", 10250, "", proxy.CodeUnknownNode},
		{"2130706433", 10250, "", proxy.CodeUnknownNode},
		{"0x7f.1", 10250, "", proxy.CodeUnknownNode},
		{"metadata.google.internal", 10250, "", proxy.CodeUnknownNode},
		{"kubernetes.default.svc", 10250, "", proxy.CodeUnknownNode},
		{"", 10250, "", proxy.CodeUnknownNode},
		{".", 10250, "", proxy.CodeUnknownNode},
	} {
		got, err := f.target(c.host, c.port)
		want := c.want
		if want == "" {
			want = proxy.Target{}.String()
		}
		if got.String() != want || proxy.CodeOf(err) != c.code {
			t.Errorf("%s port %d: %s, %v", c.host, c.port, got, err)
		}
	}
}

// FuzzRoute shows that whatever a request says, it goes to a node and an allowed
// port of it, and that nothing of the naming is left in the query.
func FuzzRoute(f *testing.F) {
	f.Add("edge1:9100", "", "", "/metrics?nodeName=edge1")
	f.Add("svc:10282", "edge2", "10.0.0.5:9100", "/")
	f.Add("127.0.0.1:10250", "", "", "/?nodeName=169.254.169.254")
	f.Add("10.0.0.7:9100", "", "", "http://edge1:9100/a?node%4eame=edge1")
	front := routing(f)
	f.Fuzz(func(t *testing.T, host, node, dest, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.Host, r.URL = host, u
		if node != "" {
			r.Header.Set(headerHost, node)
		}
		if dest != "" {
			r.Header.Set(headerDest, dest)
		}
		got, err := front.route(r, &arrival{listen: 10282, port: 10250})
		if err != nil {
			if got != (proxy.Target{}) || proxy.CodeOf(err) == proxy.CodeNoPath {
				t.Errorf("%v with %v", got, err)
			}
			return
		}
		switch got.Node {
		case "Edge1", "edge2", "edge3.example.org", "evil", "loop": // the last two by name only
		default:
			t.Errorf("goes to %v", got)
		}
		if got.Port != 10250 && got.Port != 10255 && got.Port != 9100 && got.Port != 9443 {
			t.Errorf("goes to %v", got)
		}
		if q, err := url.ParseQuery(r.URL.RawQuery); err == nil && q.Has(queryNode) {
			t.Errorf("query %q", r.URL.RawQuery)
		}
	})
}

// TestSpeaksTLS: what a port speaks is said by the Gateway of its node, and of no other.
func TestSpeaksTLS(t *testing.T) {
	table := newTable(Plan{Nodes: []Node{
		{Name: "A", PlainPorts: []uint16{9000, 9002, 10250}, TLSPorts: []uint16{9001, 9002}},
		{Name: "b", PlainPorts: []uint16{9001}, TLSPorts: []uint16{9000, 10250}},
	}})
	for _, tt := range []struct {
		node       string
		port       uint16
		plain, tls bool // at a front that speaks HTTP, and HTTPS
	}{
		{"A", 9000, false, false},
		{"b", 9000, true, true},
		{"A", 9001, true, true},
		{"b", 9001, false, false},
		{"A", 9002, false, true},
		{"b", 9002, false, true},
		{"A", 10250, false, true},
		{"b", 10250, true, true},
		{"b", 10255, false, false},
		{"none", 9000, false, true},
	} {
		to := proxy.Target{Node: tt.node, Port: tt.port}
		if plain, tls := table.speaksTLS(to, false), table.speaksTLS(to, true); plain != tt.plain || tls != tt.tls {
			t.Errorf("%s: %t at plain HTTP, %t at TLS", to, plain, tls)
		}
	}
}
