package names

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"corax/control/api/v1beta1"
)

// Fronts of the proxy on gateway nodes.
const (
	PortKubelet    = 10250
	FrontKubelet   = 10281
	FrontHTTP      = 10282
	FrontFirst     = 10285
	FrontLast      = 10292
	maxServicePort = 100 // of an EndpointSlice
)

// PortMap says which front serves which port of nodes.
type PortMap struct {
	// TLS maps ports to fronts; the kubelet's is always there.
	TLS map[uint16]uint16
	// HTTP are the ports of plain HTTP, in order; [FrontHTTP] serves all.
	HTTP []uint16
}

// String is the form of the annotation, for example "10250=10281,9100=10285": in
// order of the fronts.
func (m PortMap) String() string {
	ports := slices.SortedFunc(maps.Keys(m.TLS), func(a, b uint16) int { return int(m.TLS[a]) - int(m.TLS[b]) })
	var parts []string
	for _, p := range ports {
		parts = append(parts, fmt.Sprintf("%d=%d", p, m.TLS[p]))
	}
	return strings.Join(parts, ",")
}

// Problem is about one Gateway.
type Problem struct{ Gateway, Text string }

// claim is a port that Gateways list, in order of preference.
type claim struct {
	port     uint16
	gateways []string
}

// MapPorts gives fronts to the ports that Gateways list: those of exposed ones
// first, in order of names. A port keeps the front that an annotation of an exposed
// Gateway gives it as long as some Gateway lists it; others get the lowest free
// front. A port that gets none is reported with each Gateway that lists it.
func MapPorts(gateways []v1beta1.Gateway) (PortMap, []Problem) {
	sorted := slices.SortedFunc(slices.Values(gateways), func(a, b v1beta1.Gateway) int {
		if a.Exposed() != b.Exposed() {
			return map[bool]int{true: -1, false: 1}[a.Exposed()]
		}
		return strings.Compare(a.Metadata.Name, b.Metadata.Name)
	})
	tls, plain, problems := claims(sorted)
	m := PortMap{TLS: map[uint16]uint16{PortKubelet: FrontKubelet}}
	used := map[uint16]bool{}
	for front, port := range given(sorted) {
		if listed(tls, port) {
			m.TLS[port], used[front] = front, true
		}
	}
	report := func(c claim, format string, args ...any) {
		for _, g := range c.gateways {
			problems = append(problems, Problem{g, fmt.Sprintf(format, args...)})
		}
	}
	for _, c := range tls {
		if _, ok := m.TLS[c.port]; ok {
			continue
		}
		front := uint16(FrontFirst)
		for used[front] {
			front++
		}
		if front > FrontLast {
			report(c, "TLS port %d is not served: there are %d fronts for ports other than the kubelet's, and all are given",
				c.port, FrontLast-FrontFirst+1)
			continue
		}
		m.TLS[c.port], used[front] = front, true
	}
	for _, c := range plain {
		switch {
		case c.port == PortKubelet || listed(tls, c.port):
			report(c, "port %d is listed for plain HTTP and for TLS; only TLS is served", c.port)
		case len(m.TLS)+len(m.HTTP) >= maxServicePort:
			report(c, "HTTP port %d is not served: a Service has %d ports at most", c.port, maxServicePort)
		default:
			m.HTTP = append(m.HTTP, c.port)
		}
	}
	slices.Sort(m.HTTP)
	return m, problems
}

// claims collects the ports that Gateways with the proxy on list, each once, and
// says what cannot be read.
func claims(gateways []v1beta1.Gateway) (tls, plain []claim, problems []Problem) {
	add := func(list *[]claim, ports []uint16, name string) {
		for _, p := range ports {
			i := slices.IndexFunc(*list, func(c claim) bool { return c.port == p })
			if i < 0 {
				i = len(*list)
				*list = append(*list, claim{port: p})
			}
			(*list)[i].gateways = append((*list)[i].gateways, name)
		}
	}
	for i := range gateways {
		g := &gateways[i]
		c := g.Spec.ProxyConfig
		if c == nil || c.Replicas == 0 {
			continue
		}
		for _, f := range []struct {
			field, ports string
			into         *[]claim
		}{{"proxyHTTPSPort", c.ProxyHTTPSPort, &tls}, {"proxyHTTPPort", c.ProxyHTTPPort, &plain}} {
			ports, err := v1beta1.ParsePorts(f.ports)
			if err != nil {
				problems = append(problems, Problem{g.Metadata.Name, f.field + ": " + err.Error()})
			}
			add(f.into, ports, g.Metadata.Name)
		}
	}
	return tls, plain, problems
}

// given reads, by front, what the annotations of exposed Gateways say. Where they
// differ, the first one counts.
func given(gateways []v1beta1.Gateway) map[uint16]uint16 {
	byFront := map[uint16]uint16{}
	seen := map[uint16]bool{}
	for i := range gateways {
		g := &gateways[i]
		if !g.Exposed() {
			continue
		}
		ports, _ := v1beta1.ParsePortMap(g.Metadata.Annotations[v1beta1.AnnotationProxyPorts]) // what is readable counts
		for _, port := range slices.Sorted(maps.Keys(ports)) {
			front := ports[port]
			if front < FrontFirst || front > FrontLast || port == PortKubelet || seen[port] || byFront[front] != 0 {
				continue
			}
			byFront[front], seen[port] = port, true
		}
	}
	return byFront
}

func listed(list []claim, port uint16) bool {
	return slices.ContainsFunc(list, func(c claim) bool { return c.port == port })
}

// portName is unique in a Service, and Raven's.
func portName(scheme string, port uint16) string { return scheme + "-" + strconv.Itoa(int(port)) }
