package front

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"corax/proxy"
)

// maxHost bounds a host that is looked up: longer ones are no names.
const maxHost = 253

// table is what the nodes of a plan are looked up in. It is never changed.
type table struct {
	names map[string]Node // by name in lower case
	// unique has the addresses that exactly one node has.
	unique map[netip.Addr]Node
}

func newTable(p Plan) *table {
	t := &table{names: map[string]Node{}, unique: map[netip.Addr]Node{}}
	shared := map[netip.Addr]bool{}
	for _, n := range p.Nodes {
		name := strings.ToLower(n.Name)
		if _, twice := t.names[name]; twice || n.Name == "" {
			continue // the plan reports it
		}
		t.names[name] = n
		ip := n.IP.Unmap()
		if !ip.IsValid() || shared[ip] {
			continue
		}
		if _, ok := t.unique[ip]; ok {
			delete(t.unique, ip)
			shared[ip] = true
			continue
		}
		t.unique[ip] = n
	}
	return t
}

// byName looks a host up as a name: of a node, or what names says.
func (t *table) byName(host string, names func(string) (string, bool)) (Node, bool) {
	if len(host) > maxHost {
		return Node{}, false
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if n, ok := t.names[host]; ok {
		return n, true
	}
	if names == nil || host == "" {
		return Node{}, false
	}
	name, ok := names(host)
	if !ok {
		return Node{}, false
	}
	n, ok := t.names[strings.ToLower(name)]
	return n, ok
}

// byAddr looks a host up as the address of the one node that has it.
func (t *table) byAddr(host string) (Node, bool) {
	a, err := netip.ParseAddr(host)
	if err != nil || a.Zone() != "" {
		return Node{}, false
	}
	a = a.Unmap()
	if proxy.CheckAddr(a) != nil {
		return Node{}, false
	}
	n, ok := t.unique[a]
	return n, ok
}

// target returns the port of the node that a host stands for.
func (f *Front) target(host string, port uint16) (proxy.Target, error) {
	t := f.table.Load()
	n, ok := t.byName(host, f.cfg.Names)
	if !ok {
		n, ok = t.byAddr(host)
	}
	if !ok {
		return proxy.Target{}, proxy.Refuse(proxy.CodeUnknownNode, fmt.Sprintf("request: no node %s takes part", quoted(host)))
	}
	return n.target(port)
}

func (n Node) target(port uint16) (proxy.Target, error) {
	if port == 0 || !slices.Contains(n.Ports, port) {
		return proxy.Target{}, proxy.Refuse(proxy.CodePort, fmt.Sprintf("request: port %d of node %s may not be asked for", port, quoted(n.Name)))
	}
	return proxy.Target{Node: n.Name, Port: port}, nil
}

// speaksTLS reports whether a port of a node is to be asked by TLS, at a front that
// itself speaks TLS or not. Sites may use one port for both.
func (t *table) speaksTLS(to proxy.Target, front bool) bool {
	n := t.names[strings.ToLower(to.Node)]
	plain := to.Port == 10255 || slices.Contains(n.PlainPorts, to.Port)
	https := to.Port == 10250 || slices.Contains(n.TLSPorts, to.Port)
	if plain == https {
		return front
	}
	return https
}

// quoted returns what somebody wrote in a form and length that suits one line.
func quoted(s string) string {
	if len(s) > 80 {
		s = s[:80] + "..."
	}
	return fmt.Sprintf("%q", s)
}
