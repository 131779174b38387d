package kube

import (
	"encoding/json"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kjson "sigs.k8s.io/json"
)

var (
	_ runtime.Object   = (*serviceObject)(nil)
	_ runtime.Object   = (*sliceObject)(nil)
	_ metav1.Object    = (*serviceObject)(nil)
	_ metav1.Object    = (*sliceObject)(nil)
	_ json.Unmarshaler = (*serviceObject)(nil)
	_ json.Unmarshaler = (*sliceObject)(nil)
	_ paged            = (*objects[*serviceObject])(nil)
)

// serviceObject is what is read of a Service: its addresses inside the cluster, and
// its ports. The rest is not kept.
type serviceObject struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	addrs []netip.Addr // none: a headless Service, or one of another kind
	ports []servicePort
	// affinity is for how long a client keeps its endpoint; zero: not at all.
	affinity time.Duration
}

// servicePort is a port of a Service, or of its endpoints: the name connects the two.
type servicePort struct {
	name    string
	network string // tcp or udp
	port    uint16
}

// sliceObject is what is read of an EndpointSlice: the endpoints that are ready.
type sliceObject struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	service string // its name, in the same namespace
	addrs   []netip.Addr
	ports   []servicePort
}

// UnmarshalJSON reads what is used of a Service. It never fails for what one field
// holds, so that none keeps the others from being read.
func (s *serviceObject) UnmarshalJSON(data []byte) error {
	var doc struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        objectNames `json:"metadata"`
		Spec            struct {
			ClusterIP  string   `json:"clusterIP"`
			ClusterIPs []string `json:"clusterIPs"`
			Affinity   string   `json:"sessionAffinity"`
			Config     struct {
				ClientIP struct {
					Seconds int64 `json:"timeoutSeconds"`
				} `json:"clientIP"`
			} `json:"sessionAffinityConfig"`
			Ports []struct {
				Name     string          `json:"name"`
				Protocol corev1.Protocol `json:"protocol"`
				Port     int             `json:"port"`
			} `json:"ports"`
		} `json:"spec"`
	}
	_ = kjson.UnmarshalCaseSensitivePreserveInts(data, &doc) // fields of another type are skipped
	*s = serviceObject{TypeMeta: doc.TypeMeta, ObjectMeta: doc.Metadata.meta()}
	ips := doc.Spec.ClusterIPs
	if len(ips) == 0 {
		ips = []string{doc.Spec.ClusterIP}
	}
	for _, ip := range ips {
		if a, err := netip.ParseAddr(ip); err == nil && a.Zone() == "" { // "None": headless
			s.addrs = append(s.addrs, a.Unmap())
		}
	}
	for _, p := range doc.Spec.Ports {
		s.ports = appendPort(s.ports, p.Name, p.Protocol, p.Port)
	}
	s.affinity = affinityOf(doc.Spec.Affinity, doc.Spec.Config.ClientIP.Seconds)
	return nil
}

// affinityOf is that of a Service. A timeout that the API server would not take is its
// default, as is none.
func affinityOf(kind string, seconds int64) time.Duration {
	const day = 86400
	switch {
	case kind != string(corev1.ServiceAffinityClientIP):
		return 0
	case seconds < 1 || seconds > day:
		return time.Duration(corev1.DefaultClientIPServiceAffinitySeconds) * time.Second
	default:
		return time.Duration(seconds) * time.Second
	}
}

// UnmarshalJSON reads what is used of an EndpointSlice, as that of a Service does.
func (s *sliceObject) UnmarshalJSON(data []byte) error {
	var doc struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        objectNames `json:"metadata"`
		Endpoints       []struct {
			Addresses  []string `json:"addresses"`
			Conditions struct {
				Ready *bool `json:"ready"`
			} `json:"conditions"`
		} `json:"endpoints"`
		Ports []struct {
			Name     string          `json:"name"`
			Protocol corev1.Protocol `json:"protocol"`
			Port     int             `json:"port"`
		} `json:"ports"`
	}
	_ = kjson.UnmarshalCaseSensitivePreserveInts(data, &doc)
	*s = sliceObject{TypeMeta: doc.TypeMeta, ObjectMeta: doc.Metadata.meta(), service: doc.Metadata.Labels[discoveryv1.LabelServiceName]}
	for _, e := range doc.Endpoints {
		// Not known counts as ready, and all addresses of one endpoint are one pod.
		if ready := e.Conditions.Ready; ready != nil && !*ready || len(e.Addresses) == 0 {
			continue
		}
		if a, err := netip.ParseAddr(e.Addresses[0]); err == nil && a.Zone() == "" {
			s.addrs = append(s.addrs, a.Unmap())
		}
	}
	for _, p := range doc.Ports {
		s.ports = appendPort(s.ports, p.Name, p.Protocol, p.Port)
	}
	return nil
}

func appendPort(ports []servicePort, name string, protocol corev1.Protocol, port int) []servicePort {
	network := map[corev1.Protocol]string{"": "tcp", corev1.ProtocolTCP: "tcp", corev1.ProtocolUDP: "udp"}[protocol]
	if network == "" || port < 1 || port > 65535 {
		return ports
	}
	return append(ports, servicePort{name, network, uint16(port)})
}

// objectNames is what is read of an object's metadata.
type objectNames struct {
	Name            string            `json:"name"`
	Namespace       string            `json:"namespace"`
	ResourceVersion string            `json:"resourceVersion"`
	Labels          map[string]string `json:"labels"`
}

func (n objectNames) meta() metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: n.Name, Namespace: n.Namespace, ResourceVersion: n.ResourceVersion}
}

// DeepCopyObject returns a copy that shares no memory that either writes to.
func (s *serviceObject) DeepCopyObject() runtime.Object {
	c := *s
	return &c
}

// DeepCopyObject returns a copy that shares no memory that either writes to.
func (s *sliceObject) DeepCopyObject() runtime.Object {
	c := *s
	return &c
}

// objects is an answer to a list request.
type objects[T any] struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []T `json:"items"`
}

// DeepCopyObject returns a copy of the list; its items are shared, and never
// changed.
func (l *objects[T]) DeepCopyObject() runtime.Object {
	c := *l
	c.Items = append([]T(nil), l.Items...)
	return &c
}

func (l *objects[T]) more() string { return l.Continue }
func (l *objects[T]) empty() paged { return &objects[T]{} }
func (l *objects[T]) add(o runtime.Object) {
	next, ok := o.(*objects[T])
	if ok {
		l.Items, l.ListMeta = append(l.Items, next.Items...), next.ListMeta
	}
}

type (
	serviceList = objects[*serviceObject]
	sliceList   = objects[*sliceObject]
)
