package front

import (
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"corax/proxy"
)

// The headers that name a node, as Raven's proxy has them: a node's name, and an
// address of which only the port counts.
const (
	headerHost = "X-Tunnel-Proxy-Host"
	headerDest = "X-Tunnel-Proxy-Dest"
	headerMode = "Forward-Mode"
	queryNode  = "nodeName"
)

// naming is what a request says about where it is to go.
type naming struct {
	node, dest string // headers
	query      string
	host       string // Host, or the authority of an absolute target
}

// route is a host that is to be looked up, and a port; 0: none is named.
type route struct {
	host string
	port uint16
}

// namingOf collects what the request says, and takes the query's part out of it.
func namingOf(r *http.Request) (naming, error) {
	var n naming
	var err error
	if n.node, err = single(r.Header, headerHost); err != nil {
		return n, err
	}
	if n.dest, err = single(r.Header, headerDest); err != nil {
		return n, err
	}
	if r.URL.Scheme != "" && r.URL.Scheme != "http" || r.URL.User != nil || r.URL.Opaque != "" {
		return n, badHead("a target that is neither a path nor a plain http URL")
	}
	n.host = r.Host
	n.query, r.URL.RawQuery, err = takeQuery(r.URL.RawQuery)
	return n, err
}

func single(h http.Header, name string) (string, error) {
	v := h.Values(name)
	if len(v) > 1 {
		return "", badHead("%s is there %d times", name, len(v))
	}
	return h.Get(name), nil
}

// takeQuery takes nodeName out of a query and leaves the rest byte by byte as it is.
func takeQuery(raw string) (node, rest string, err error) {
	if !strings.Contains(raw, queryNode) && !strings.Contains(raw, "%") {
		return "", raw, nil
	}
	var kept []string
	seen := false
	for _, pair := range strings.Split(raw, "&") {
		k, v, _ := strings.Cut(pair, "=")
		name, kerr := url.QueryUnescape(k)
		if kerr != nil || name != queryNode {
			kept = append(kept, pair)
			continue
		}
		value, verr := url.QueryUnescape(v)
		if seen || verr != nil {
			return "", "", badHead("%s is not one name", queryNode)
		}
		node, seen = value, true
	}
	return node, strings.Join(kept, "&"), nil
}

// route decides where the request goes. The headers win over the query, and that
// over Host; two that name different nodes are refused, as isNode knows them.
// own is the port that the front listens on, which is no port of a node.
func (n naming) route(own uint16, isNode func(host string) (string, bool)) (route, error) {
	host, port, err := parseAuthority(n.host)
	if err != nil {
		return route{}, err
	}
	var named []string
	for _, s := range []string{n.node, n.query} {
		if s == "" {
			continue
		}
		h, p, err := parseAuthority(s)
		if err != nil {
			return route{}, err
		}
		if p != 0 {
			port = p
		}
		named = append(named, h)
	}
	if n.dest != "" {
		_, p, err := parseAuthority(n.dest)
		if err != nil {
			return route{}, err
		}
		if p == 0 {
			return route{}, badHead("%s has no port", headerDest)
		}
		port = p
	}
	if port == own {
		port = 0
	}
	if err := sameNode(append(named, host), isNode); err != nil {
		return route{}, err
	}
	return route{append(named, host)[0], port}, nil
}

// sameNode refuses hosts that lead to two nodes.
func sameNode(hosts []string, isNode func(string) (string, bool)) error {
	first := ""
	for _, h := range hosts {
		node, ok := isNode(h)
		if !ok {
			continue
		}
		if first != "" && node != first {
			return badHead("it names two nodes, %s and %s", quoted(first), quoted(node))
		}
		first = node
	}
	return nil
}

// access returns what a caller must be allowed to do, by the method and the path as
// it was sent. Only a plain GET of metrics is less than everything; a path that is
// written in any unusual way counts as everything.
func access(method string, u *url.URL, upgrade bool, node string) Access {
	a := Access{Verb: verb(method), Subresource: "proxy", Node: node}
	if upgrade {
		a.Verb = "create" // it runs things, whatever the method says
		return a
	}
	p := u.EscapedPath()
	plain := p == path.Clean(p) && !strings.ContainsAny(p, `%\;`)
	if (method == http.MethodGet || method == http.MethodHead) && plain && (p == "/metrics" || strings.HasPrefix(p, "/metrics/")) {
		a.Subresource = "metrics"
	}
	return a
}

func verb(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead:
		return "get"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		return "delete"
	default:
		return "create"
	}
}

// upgradeOf returns the protocol to which a request asks to change; empty: none. Of
// all protocols only those of the kubelet's streams are passed on: an upgrade to
// HTTP/2 would carry requests that nobody here authorizes.
func upgradeOf(h http.Header) (string, error) {
	protocols := h.Values("Upgrade")
	asks := slices.ContainsFunc(h.Values("Connection"), func(v string) bool {
		return slices.ContainsFunc(strings.Split(v, ","), func(t string) bool {
			return strings.EqualFold(strings.TrimSpace(t), "upgrade")
		})
	})
	if !asks {
		return "", nil
	}
	if len(protocols) == 1 {
		for _, known := range []string{"websocket", "SPDY/3.1"} {
			if strings.EqualFold(protocols[0], known) {
				return protocols[0], nil
			}
		}
	}
	return "", proxy.Refuse(proxy.CodeMalformed, "request: only SPDY/3.1 and websocket are passed on")
}
