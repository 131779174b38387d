package names

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"corax/control/api/v1beta1"
)

// Node is what the names need of a node.
type Node struct {
	Name string
	// Hostname is the node's address of that type; it may be empty or an IP
	// address.
	Hostname string
	// Addr is its InternalIP, else its ExternalIP; zero when it has none.
	Addr netip.Addr
	// Edge says that it is reached over the proxy.
	Edge bool
}

// Hosts returns the lines of a hosts file, sorted: each node's name, and its
// Hostname where that differs. Edge nodes get the address front; when that is
// zero, every node gets its own. A node without address is left out.
//
// A kubelet says its Hostname itself, and who reads the file believes it. So one
// that is another node's name, or that of the cluster's own services, is left out
// and reported; so is one of a domain, such as an identity provider's that the API
// server calls, unless it begins as the node's name does. Whoever joins a node
// chooses its name: that of a service is left out too.
func Hosts(nodes []Node, front netip.Addr) (text string, problems []string) {
	owner := make(map[string]string, len(nodes))
	for _, n := range nodes {
		owner[strings.ToLower(n.Name)] = n.Name
	}
	sorted := slices.SortedFunc(slices.Values(nodes), func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	lines := make([]string, 0, len(nodes))
	for _, n := range sorted {
		addr := n.Addr
		if n.Edge && front.IsValid() {
			addr = front
		}
		if !addr.IsValid() {
			continue
		}
		if reserved(strings.ToLower(n.Name)) {
			problems = append(problems, fmt.Sprintf("the name of node %s means something else; it leads nowhere", n.Name))
		} else {
			lines = append(lines, addr.String()+"\t"+n.Name)
		}
		host := strings.ToLower(n.Hostname)
		if !isName(host) || host == strings.ToLower(n.Name) {
			continue
		}
		if other, taken := owner[host]; taken {
			problems = append(problems, fmt.Sprintf("node %s says that its Hostname is %q, which is that of node %s", n.Name, host, other))
			continue
		}
		if reserved(host) || !follows(host, strings.ToLower(n.Name)) {
			problems = append(problems, fmt.Sprintf("node %s says that its Hostname is %q, which is not a node's", n.Name, host))
			continue
		}
		owner[host] = n.Name
		lines = append(lines, addr.String()+"\t"+host)
	}
	slices.Sort(lines)
	if len(lines) == 0 {
		return "", problems
	}
	return strings.Join(lines, "\n") + "\n", problems
}

// isName reports whether host is a DNS name without a final dot, and no address.
func isName(host string) bool {
	return v1beta1.CheckHost(host) == nil && !strings.HasSuffix(host, ".")
}

// follows reports whether a Hostname may be that of a node: one label, or a name
// whose first label is that of the node's name.
func follows(host, node string) bool {
	first, _, dotted := strings.Cut(host, ".")
	label, _, _ := strings.Cut(node, ".")
	return !dotted || first == label
}

// reserved reports whether host means something else than a node to programs of
// the control plane.
func reserved(host string) bool {
	first, rest, _ := strings.Cut(host, ".")
	switch first {
	case "localhost", "kubernetes":
		return true
	}
	return host == "svc" || strings.HasPrefix(rest, "svc.") || rest == "svc" ||
		strings.Contains(rest, ".svc.") || strings.HasSuffix(rest, ".svc") ||
		strings.HasSuffix(host, "cluster.local") || strings.HasSuffix(host, ".localhost")
}
