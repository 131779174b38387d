package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"corax/proxy"
)

// examineAgent asks the agent of this node; nil when there is none.
func (d *doctor) examineAgent(ctx context.Context, r *DoctorReport) *Status {
	s, err := stepped(ctx, stepTimeout, d.agent.Status)
	if err != nil {
		r.add("agent", checkSkip, "no agent answers here: what it knows cannot be checked", err.Error(), "run this on a front to check the way from there on")
		return nil
	}
	found := fmt.Sprintf("%s of %s", s.Role, cmp.Or(s.Gateway, "no gateway"))
	if s.Proxy == nil {
		r.add("agent", checkOK, found+", with nothing to do in proxy mode", "", "")
		return &s
	}
	found += ", " + proxyText(*s.Proxy)
	var wrong []string
	for _, l := range s.Proxy.Listeners {
		if l.Error != "" {
			wrong = append(wrong, fmt.Sprintf("%s at %s: %s", l.Front, l.Address, l.Error))
		}
	}
	if len(wrong) > 0 {
		r.add("agent", checkFail, found, strings.Join(wrong, "; "), "free the port, or give the agent another one: --proxy-tls-addr, --proxy-http-addr, --proxy-connect-addr")
		return &s
	}
	var about []string
	for _, p := range s.Problems {
		if strings.Contains(p, "proxy") || strings.Contains(p, "cluster:") {
			about = append(about, p)
		}
	}
	if len(about) > 0 {
		r.add("agent", checkWarn, found, strings.Join(about, "; "), "corax status shows all problems of this node")
		return &s
	}
	r.add("agent", checkOK, found, "", "")
	return &s
}

// surveyed is what the objects say; the zero value when they were not looked at.
type surveyed struct {
	Node, Hostname string // empty Node: there is none of that name
	Gateway        string
	Active, Fronts []string // nodes: active in that Gateway, and fronts of all
	Switch         string   // of proxy mode, as in raven-cfg
	Leads, Service netip.Addr
	Ports, Plain   []uint16 // of that Service; Plain: those of HTTP
	Ready          int      // fronts behind the Service
	Unread         []string
}

func (s surveyed) host() string { return cmp.Or(s.Hostname, s.Node) }

// unread reports whether an object could not be read: then nothing is said of it.
func (s surveyed) unread(prefix string) bool {
	return slices.ContainsFunc(s.Unread, func(u string) bool { return strings.HasPrefix(u, prefix) })
}

// examineObjects looks at the cluster.
func (d *doctor) examineObjects(ctx context.Context, r *DoctorReport) surveyed {
	q := d.question
	const fix = "give --kubeconfig, for example /etc/kubernetes/admin.conf"
	if q.Kubeconfig == "" && !d.inCluster {
		r.add("objects", checkSkip, "the objects were not looked at", "", fix)
		return surveyed{}
	}
	s, err := stepped(ctx, 2*stepTimeout, func(ctx context.Context) (surveyed, error) { return d.survey(ctx, q.Kubeconfig, q.Node) })
	if err != nil && q.Kubeconfig == "" {
		r.add("objects", checkSkip, "the objects cannot be looked at with the rights of this pod", err.Error(), fix)
		return surveyed{}
	}
	if err != nil {
		r.add("objects", checkFail, "the cluster cannot be asked", err.Error(), "see whether the kubeconfig is right, and may list nodes")
		return surveyed{}
	}
	if cause, fix := s.wrong(q.Port); cause != "" {
		r.add("objects", checkFail, "the objects do not lead to the node", cause, fix)
		return s
	}
	found := fmt.Sprintf("node %s of gateway %s, fronts %s", s.Node, cmp.Or(s.Gateway, "-"), strings.Join(s.Fronts, ", "))
	if len(s.Unread) > 0 {
		found += "; not read: " + strings.Join(s.Unread, "; ")
	}
	r.add("objects", checkOK, found, "", "")
	return s
}

// wrong returns the first thing that keeps the objects from leading to the node.
func (s surveyed) wrong(port uint16) (cause, fix string) {
	edge := s.Leads.IsValid() && s.Leads == s.Service
	switch {
	case s.Node == "":
		return "no node has that name or Hostname address", "kubectl get nodes -o wide; the Hostname address is in status.addresses"
	case s.Switch == "false":
		return "proxy mode is switched off", "kubectl -n kube-system patch configmap raven-cfg --type merge -p '{\"data\":{\"enable-l7-proxy\":\"true\"}}'"
	case s.Gateway == "":
		return "the node is in no Gateway", "label it with its pool or domain, and look at the controller: kubectl -n kube-system logs deploy/corax-controller"
	case s.unread("gateways"):
	case len(s.Active) == 0:
		return "no endpoint of Gateway " + s.Gateway + " is active", "kubectl describe gateway " + s.Gateway
	case len(s.Fronts) == 0:
		return "no exposed Gateway has an active proxy endpoint, so there is no front", "expose the cloud's Gateway: kubectl patch gateway cloud --type merge -p '{\"spec\":{\"exposeType\":\"LoadBalancer\"}}', with proxyConfig.Replicas above 0"
	}
	switch {
	case s.unread("service") || s.unread("configmap/edge"):
	case !s.Service.IsValid():
		return "there is no Service x-raven-proxy-internal-svc", "see whether the controller runs, and what its log says"
	case !s.Leads.IsValid():
		return "ConfigMap edge-tunnel-nodes does not have the node", "see whether the controller runs, and what its log says of names"
	case edge && !slices.Contains(s.Ports, port):
		return fmt.Sprintf("the Service does not serve port %d, only %v", port, s.Ports), "list it in proxyHTTPPort or proxyHTTPSPort of the node's Gateway"
	case edge && s.Ready == 0 && !s.unread("endpointslices"):
		return "the Service has no endpoint", "kubectl -n kube-system get endpointslices -l kubernetes.io/service-name=x-raven-proxy-internal-svc"
	}
	return "", ""
}

// isFront reports whether the agent of this node is a front.
func isFront(s *Status) bool { return s != nil && s.Proxy != nil && s.Proxy.Front }

// ownFront is where the front of this node takes requests for a port, when that can
// be told.
func ownFront(s *Status, port uint16) (string, bool) {
	if !isFront(s) || port != portKubelet {
		return "", false
	}
	for _, l := range s.Proxy.Listeners {
		if l.Front == "tls" && l.Error == "" {
			return l.Address, true // that for kubelets is the first
		}
	}
	return "", false
}

// examineName resolves the name as a program here does, and returns where it leads.
// A front needs no names itself: there it is a warning when they are not known.
func (d *doctor) examineName(ctx context.Context, r *DoctorReport, seen surveyed, front bool) (string, bool) {
	bad := checkFail
	if front && d.question.Hosts == "" {
		bad = checkWarn
	}
	name := cmp.Or(seen.host(), d.question.Node)
	const steer = "keep the lines of ConfigMap edge-tunnel-nodes in the hosts file or the DNS of whoever asks (docs/proxy.md), or use HTTP CONNECT, which needs no names"
	if _, err := netip.ParseAddr(name); err == nil {
		r.add("name", checkSkip, "the Hostname address is an IP address: no TLS name is sent for it", "", "such nodes are reached by HTTP CONNECT, or by their own name")
		return "", false
	}
	list, err := stepped(ctx, stepTimeout, func(ctx context.Context) ([]string, error) { return d.resolve(ctx, name) })
	if err != nil || len(list) == 0 {
		r.add("name", bad, "the name "+name+" is not known here", fmt.Sprint(err), steer)
		return "", false
	}
	addr, err := netip.ParseAddr(list[0])
	found := fmt.Sprintf("%s is %s", name, strings.Join(list, ", "))
	switch {
	case err != nil:
		r.add("name", bad, found, err.Error(), steer)
		return "", false
	case addr.IsLoopback(), addr.IsLinkLocalUnicast(), addr.IsUnspecified():
		r.add("name", bad, found, "an API server refuses to proxy to loopback and link-local addresses", steer)
		return "", false
	case seen.Leads.IsValid() && !slices.Contains(list, seen.Leads.String()):
		r.add("name", bad, found, "ConfigMap edge-tunnel-nodes says "+seen.Leads.String()+": what is asked here is stale, or another source", steer)
	default:
		r.add("name", checkOK, found, "", "")
	}
	return netip.AddrPortFrom(addr, d.question.Port).String(), true
}

// examineFront connects to where the name leads, and begins TLS with the node's
// name.
func (d *doctor) examineFront(ctx context.Context, r *DoctorReport, at, name string) {
	k := d.knock(ctx, at, name)
	if k.dial != nil {
		r.add("service", checkFail, "nobody takes a connection at "+at, k.dial.Error(),
			"where this is the Service's address: kube-proxy must run here, and a front be ready behind it; where it is the node's own: the ConfigMap is not in use, or no proxy endpoint is active")
		return
	}
	r.add("service", checkOK, at+" takes connections", "", "")
	r.addNode("front", name, at, k)
}

// addNode says with whom TLS ended.
func (r *DoctorReport) addNode(step, name, at string, k knocked) {
	switch {
	case k.alert != 0:
		cause, fix := alertMeans(k.alert)
		r.add(step, checkFail, fmt.Sprintf("TLS with the name %s was refused with alert %d", name, k.alert), cause, fix)
	case k.err != nil:
		r.add(step, checkWarn, "no TLS at "+at, k.err.Error(), "a port of plain HTTP is asked for by http://"+net.JoinHostPort(name, strconv.Itoa(int(r.Port)))+"/metrics with a bearer token")
	case !isIP(name) && !slices.ContainsFunc(k.names, func(n string) bool { return strings.EqualFold(n, name) }):
		r.add(step, checkWarn, fmt.Sprintf("TLS works, with a certificate of %s for %v", cmp.Or(k.subject, "nobody"), k.names),
			"the certificate does not have the name "+name, "with --kubelet-certificate-authority the API server refuses it: set serverTLSBootstrap in the kubelet's configuration and approve its requests")
	default:
		r.add(step, checkOK, "TLS ends at "+cmp.Or(k.subject, name)+", untouched on the way", "", "")
	}
}

// alertMeans says what an alert of a front means. See the front's documented errors.
func alertMeans(a byte) (cause, fix string) {
	switch a {
	case 112:
		return "the front knows no node of that name", "see whether the node is in a Gateway that takes part in proxy mode, and what corax status says on the front"
	case 49:
		return "the front, or the edge, may not connect to that port", "list the port in proxyHTTPSPort of the node's Gateway; corax doctor on the front says which of the two"
	case 80:
		return "the front found no way to the node", "run corax doctor --node NAME on a front: it tells path, edge and node apart"
	default:
		return "the node itself refused, or another program answers there", "see the node's own log"
	}
}

// examineWay has the agent of this node dial, when it is a front.
func (d *doctor) examineWay(ctx context.Context, r *DoctorReport, status *Status) {
	if !isFront(status) {
		r.add("path", checkSkip, "this node is no front: the way from a front on cannot be seen from here", "", "run corax doctor on a front: kubectl -n kube-system exec POD -- corax doctor --node "+d.question.Node)
		return
	}
	p, err := stepped(ctx, maxProbe+stepTimeout, func(ctx context.Context) (ProxyProbe, error) {
		return d.agent.Probe(ctx, d.question.Node, d.question.Port)
	})
	if err != nil {
		r.add("path", checkFail, "the agent could not try", err.Error(), "corax status")
		return
	}
	if p.Node == "" {
		r.add("path", checkFail, "this front knows no such node", p.Error, "see whether the node is in a Gateway that takes part in proxy mode: kubectl get gateways, and proxyConfig.Replicas above 0")
		return
	}
	way := "plainly, as it is of this domain"
	if !p.Own {
		way = fmt.Sprintf("over the gateway nodes of %s: %s", p.Gateway, cmp.Or(addrList(p.Via), "none"))
	}
	if p.Code != proxy.CodeNone.String() {
		step, fix := stepOf(p.Code, p.Gateway)
		r.add(step, checkFail, "dialled "+way, p.Error, fix)
		return
	}
	r.add("path", checkOK, fmt.Sprintf("%s reached in %.0f ms %s", p.Node, p.Millis, way), "", "")
	switch {
	case p.TLS == "" && p.TLSError != "":
		r.add("node", checkOK, fmt.Sprintf("port %d of %s takes connections", d.question.Port, p.Node), "", "")
	case p.TLSError != "":
		r.add("node", checkWarn, "TLS with "+p.TLS, p.TLSError, "requests whose TLS ends at the front are refused, others are not: have the kubelet's certificate signed by the cluster (serverTLSBootstrap), or give --kubelet-ca")
	default:
		r.add("node", checkOK, "TLS with "+p.TLS+", verified", "", "")
	}
}

func addrList(list []netip.Addr) string {
	texts := make([]string, len(list))
	for i, a := range list {
		texts[i] = a.String()
	}
	return strings.Join(texts, ", ")
}

// stepOf says at which step a dial failed, and what to do.
func stepOf(code, gateway string) (step, fix string) {
	switch code {
	case "unknown_node":
		return "edge", "the objects that front and edge see differ: corax status on both"
	case "no_path":
		return "path", "corax ping " + cmp.Or(gateway, "GATEWAY") + " and corax paths " + cmp.Or(gateway, "GATEWAY") + " say how its gateway nodes are reached"
	case "port":
		return "edge", "list the port in proxyHTTPPort or proxyHTTPSPort of Gateway " + cmp.Or(gateway, "GATEWAY")
	case "caller":
		return "edge", "the edge does not take this node for a front: corax status on both, since their objects differ"
	case "dial":
		return "node", "the gateway node of that domain cannot connect: see whether the kubelet, or what listens there, runs, and the firewall between them"
	case "limit":
		return "edge", "corax proxy there shows who holds the streams"
	default:
		return "path", "corax status here and on a gateway node of " + cmp.Or(gateway, "the domain")
	}
}
