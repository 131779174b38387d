package exposure

import (
	"net/netip"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"corax/control/api/v1beta1"
)

// address is where a Service is reached.
type address struct {
	ip   netip.Addr
	host string // when there is no ip
}

// addressOf returns the first usable address of a Service, an IP address before a
// name; zero when it has none.
func (w *work) addressOf(s *corev1.Service) address {
	var a address
	for _, i := range s.Status.LoadBalancer.Ingress {
		if ip, err := v1beta1.ParseAddr(i.IP); err == nil {
			// The address of a balancer inside the cloud's network is no use
			// outside: the one bound to it is.
			if w.Settings.EIP.IsValid() && w.Settings.BalancerIP == i.IP {
				ip = w.Settings.EIP
			}
			return address{ip: ip}
		}
		if a.host == "" && v1beta1.CheckHost(i.Hostname) == nil {
			a.host = i.Hostname
		}
	}
	return a
}

// published is what a Service makes of an entry.
type published struct {
	address
	port int // UDP
	tls  string
}

// of returns what the Services of a hub publish; not ok while there is no address.
func (w *work) published(main, second *corev1.Service) (p published, ok bool) {
	p.address = w.addressOf(main)
	i := ourPort(main.Spec.Ports, corev1.ProtocolUDP)
	if p.address == (address{}) || i < 0 {
		return p, false
	}
	p.port = int(main.Spec.Ports[i].Port)
	with := main
	if second != nil {
		with = second
	}
	i = ourPort(with.Spec.Ports, corev1.ProtocolTCP)
	if i >= 0 && w.addressOf(with) == p.address && with.Spec.Ports[i].Port != v1beta1.PortTLSFallback {
		p.tls = strconv.Itoa(int(with.Spec.Ports[i].Port))
	}
	return p, true
}

// publish writes the address of a hub into its entries.
func (w *work) publish(h hub, main, second *corev1.Service) {
	p, ok := w.published(main, second)
	if !ok {
		w.noAddress(h, main)
		return
	}
	if second != nil && len(second.Status.LoadBalancer.Ingress) > 0 && w.addressOf(second) != p.address {
		w.problem(reasonTCP, "Service %s for the TCP fallback of node %s has another address than %s; it is not used",
			second.Name, h.node, main.Name)
	}
	for i := range w.Endpoints {
		if e := &w.Endpoints[i]; e.NodeName == h.node {
			p.into(e)
		}
	}
}

func (p *published) into(e *v1beta1.Endpoint) {
	e.PublicPort = p.port
	e.PublicIP = ""
	if p.ip.IsValid() {
		e.PublicIP = p.ip.String()
	} else {
		setConfig(e, v1beta1.ConfigPublicHost, p.host)
	}
	if p.tls != "" {
		setConfig(e, v1beta1.ConfigTLSPort, p.tls)
	}
}

func setConfig(e *v1beta1.Endpoint, key, value string) {
	if e.Config == nil {
		e.Config = map[string]string{}
	}
	e.Config[key] = value
}

// unpublish takes out of the entries what Service s put there: peers would go on
// sending to an address that will be somebody else's. What differs was set by
// somebody else, and stays.
func (w *work) unpublish(s *corev1.Service, node string) {
	p, ok := w.published(s, nil)
	if !ok {
		return
	}
	for i := range w.Endpoints {
		e := &w.Endpoints[i]
		if e.NodeName != node {
			continue
		}
		switch {
		case p.ip.IsValid() && e.PublicIP == p.ip.String():
			e.PublicIP = ""
		case p.host != "" && e.PublicIP == "" && e.Config[v1beta1.ConfigPublicHost] == p.host:
			delete(e.Config, v1beta1.ConfigPublicHost)
		default:
			continue
		}
		if e.PublicPort == p.port {
			e.PublicPort = 0
		}
		if p.tls != "" && e.Config[v1beta1.ConfigTLSPort] == p.tls && p.tls == strconv.Itoa(p.port) {
			delete(e.Config, v1beta1.ConfigTLSPort) // it follows from the port
		}
	}
}

// noAddress notes that the cloud gave a Service no address yet.
func (w *work) noAddress(h hub, s *corev1.Service) {
	if w.late(s) && !slices.ContainsFunc(w.Delete, func(d *corev1.Service) bool { return d == s }) {
		w.problem(reasonAddress, "Service %s of node %s has no address: see its events", s.Name, h.node)
		return
	}
	w.wait("node %s waits for the address of Service %s", h.node, s.Name)
}
