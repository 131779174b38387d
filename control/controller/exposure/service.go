package exposure

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/control/api/v1beta1"
)

// Names of Alibaba Cloud's controller.
const (
	alibaba                = "service.beta.kubernetes.io/alibaba-cloud-loadbalancer-"
	annotationBalancerName = alibaba + "name"
	annotationBalancerID   = alibaba + "id"
	annotationListeners    = alibaba + "force-override-listeners"
	annotationACLStatus    = alibaba + "acl-status"
	annotationACL          = alibaba + "acl-id"
	annotationACLType      = alibaba + "acl-type"
	labelBalancerID        = "service.k8s.alibaba/loadbalancer-id"
	balancerNamePrefix     = "k8s/raven-agent-ds/kube-system/"
)

// balance makes or changes the Services of one hub, and publishes their address.
func (w *work) balance(h hub) {
	main, second := w.of(h.node)
	if main == nil {
		w.make(h, w.cloudSplits())
		return
	}
	if !isOwn(main) && !isRavens(main) { // a person's
		w.publish(h, main, second)
		return
	}
	now := main.DeepCopy()
	h = w.settlePorts(main, h)
	split := isSplit(main) || w.refused(main)
	if !isOwn(main) {
		w.Adopt[main.Name] = true
		// One that works is not put at risk by a second protocol.
		split = split || len(main.Status.LoadBalancer.Ingress) > 0
	}
	w.adapt(now, main, protocolsOf(split), h)
	w.change(main, now)
	if split {
		w.balanceTCP(h, main, second)
	}
	w.publish(h, main, second)
}

// balanceTCP makes or changes the second Service, once the first has an address
// that it can ask for.
func (w *work) balanceTCP(h hub, main, second *corev1.Service) {
	if second != nil {
		now := second.DeepCopy()
		w.adapt(now, second, corev1.ProtocolTCP, h)
		w.change(second, now)
		return
	}
	if len(main.Status.LoadBalancer.Ingress) == 0 {
		return
	}
	if s := w.fresh(h, corev1.ProtocolTCP); s != nil {
		if w.shared == "" {
			s.Spec.LoadBalancerIP = main.Status.LoadBalancer.Ingress[0].IP
		}
		w.Create = append(w.Create, s)
	}
}

func (w *work) make(h hub, split bool) {
	if s := w.fresh(h, protocolsOf(split)); s != nil {
		w.Create = append(w.Create, s)
		w.wait("node %s has no Service yet", h.node)
	}
}

// fresh returns a new Service, or nil when it cannot be made now.
func (w *work) fresh(h hub, protocols corev1.Protocol) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name:      serviceName(w.Gateway.Name, h.node, string(protocols), w.taken),
			Namespace: w.Namespace,
			Labels: map[string]string{
				v1beta1.LabelGateway: w.Gateway.Name, v1beta1.LabelGatewayType: v1beta1.TypeTunnel,
				v1beta1.LabelEndpointsName: h.node,
			},
		},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal,
		},
	}
	if _, known := w.lastRanges(); !known {
		w.problem(reasonAllowList, "node %s gets no Service while acl-entry of %s cannot be read", h.node, SettingsName)
		return nil
	}
	if err := checkLabels(h.node); err != nil {
		w.problem(reasonName, "node %s: %v", h.node, err)
		return nil
	}
	w.adapt(s, nil, protocols, h)
	if !w.claimPorts(s, h) {
		return nil
	}
	w.taken[s.Name] = true
	return s
}

// claimPorts reports whether a shared balancer has the ports of s, which is new,
// to give.
func (w *work) claimPorts(s *corev1.Service, h hub) bool {
	if w.shared == "" {
		return true
	}
	for _, p := range s.Spec.Ports {
		switch other := w.ports[port{p.Protocol, p.Port}]; {
		case other == nil:
		case other.DeletionTimestamp != nil:
			w.wait("node %s waits until Service %s has left port %d of balancer %s", h.node, other.Name, p.Port, w.shared)
			return false
		default:
			w.portTaken(p.Protocol, p.Port, other, h)
			return false
		}
	}
	for _, p := range s.Spec.Ports {
		w.ports[port{p.Protocol, p.Port}] = s
	}
	return true
}

// settlePorts returns h, or h with the ports that Service s has now when a shared
// balancer cannot give those of h.
func (w *work) settlePorts(s *corev1.Service, h hub) hub {
	if w.shared == "" || s.Annotations[annotationBalancerID] != w.shared {
		return h
	}
	now := h
	for _, p := range []struct {
		protocol corev1.Protocol
		want     int32
		now      *int32
	}{{corev1.ProtocolUDP, h.udp, &now.udp}, {corev1.ProtocolTCP, h.tcp, &now.tcp}} {
		other := w.ports[port{p.protocol, p.want}]
		i := ourPort(s.Spec.Ports, p.protocol)
		switch {
		case other == nil:
			w.ports[port{p.protocol, p.want}] = s
		case other != s && i >= 0:
			*p.now = s.Spec.Ports[i].Port
			w.portTaken(p.protocol, p.want, other, h)
		}
	}
	return now
}

func (w *work) portTaken(protocol corev1.Protocol, number int32, by *corev1.Service, h hub) {
	w.problem(reasonPort, "%s port %d of balancer %s is that of Service %s; give the endpoint of node %s another port",
		protocol, number, w.shared, by.Name, h.node)
}

// adapt makes s, which is was now and nil when it is new, what it should be.
func (w *work) adapt(s, was *corev1.Service, protocols corev1.Protocol, h hub) {
	set := func(m *map[string]string, key, value string) {
		if *m == nil {
			*m = map[string]string{}
		}
		(*m)[key] = value
	}
	set(&s.Labels, v1beta1.LabelManagedBy, v1beta1.ManagedBy)
	if protocols != "" {
		set(&s.Annotations, v1beta1.AnnotationProtocols, string(protocols))
	}
	s.Spec.Ports = ports(s.Spec.Ports, protocols, h)

	r := readApplied(was)
	r.Worked = r.Worked || was != nil && len(was.Status.LoadBalancer.Ingress) > 0
	wanted := w.annotations(was)
	for key := range r.Annotations {
		if _, ok := wanted[key]; !ok {
			wanted[key] = "" // ours, and not wanted any more
		}
	}
	for key, value := range wanted {
		r.annotation(s, key, value)
	}
	if ranges, known := w.lastRanges(); known && (was == nil || w.Settings.Refused == "") {
		r.ranges(s, ranges)
	}
	set(&s.Annotations, v1beta1.AnnotationApplied, r.String())
}

// annotations returns those that a Service should have; was is nil for a new one.
func (w *work) annotations(was *corev1.Service) map[string]string {
	a := map[string]string{v1beta1.AnnotationDiscard: "true"}
	if w.Settings.ACL != "" {
		a[annotationACLStatus], a[annotationACL], a[annotationACLType] = "on", w.Settings.ACL, "white"
	}
	// A balancer that the cloud made for this Service stays: it cannot be
	// exchanged, and would be left behind.
	made := was != nil && was.Annotations[annotationBalancerID] == "" &&
		(was.Labels[labelBalancerID] != "" || len(was.Status.LoadBalancer.Ingress) > 0)
	switch {
	case w.shared != "" && !made:
		a[annotationBalancerID], a[annotationListeners] = w.shared, "true"
	case w.ClusterID != "":
		a[annotationBalancerName] = balancerNamePrefix + w.ClusterID
	}
	return a
}

// lastRanges returns the allow list. While it cannot be read, that is what our
// other Services have; without one nothing is known.
func (w *work) lastRanges() (ranges []string, known bool) {
	if w.Settings.Refused == "" {
		return texts(w.Settings.Allow), true
	}
	for _, s := range w.all {
		if isOwn(s) && s.DeletionTimestamp == nil {
			return readApplied(s).Ranges, true
		}
	}
	return nil, false
}

func texts(list []netip.Prefix) []string {
	var t []string
	for _, p := range list {
		t = append(t, p.String())
	}
	return t
}

// protocolsOf returns what AnnotationProtocols says of a first Service.
func protocolsOf(split bool) corev1.Protocol {
	if split {
		return corev1.ProtocolUDP
	}
	return ""
}
