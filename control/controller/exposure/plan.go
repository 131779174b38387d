package exposure

import (
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/control/api/v1beta1"
	"corax/control/kube/gateway"
)

// patience is how long a cloud may take to give a Service an address. Then it is
// taken to refuse two protocols in one Service.
const patience = 2 * time.Minute

// Conditions that the exposure gives a Gateway.
const (
	ConditionExposed   = "Exposed"
	ConditionAllowList = "AllowList"
)

// Node is what the exposure must know of a node.
type Node struct {
	Name string
	// Addrs are the internal addresses, in the node's order.
	Addrs []netip.Addr
	// External and ExternalName are its first external address and name, when it
	// has them.
	External     netip.Addr
	ExternalName string
}

// Input is all that [For] looks at. It changes none of it.
type Input struct {
	Gateway  *gateway.Gateway
	Settings Settings
	// Node returns what is known of a node, and whether it exists.
	Node func(name string) (Node, bool)
	// Services are all of the namespace: their names are taken, and those of other
	// Gateways show what the cloud can do.
	Services []corev1.Service
	// Slices are those that our controller manages.
	Slices []discoveryv1.EndpointSlice
	// Namespace is where Services are made.
	Namespace string
	// ClusterID is the last part of the name of a balancer; empty: it is not named.
	ClusterID string
	Now       time.Time
}

// Change is an object as it is, and as it should be.
type Change[T any] struct{ Was, Is *T }

// Result is what there should be. The steps are safe in the order of the fields;
// whoever stops between two of them gets the rest from the next For.
type Result struct {
	// Hold says that the Gateway must carry the finalizer before anything is made.
	Hold bool
	// Endpoints are the wanted spec.endpoints: same entries, same order.
	Endpoints []v1beta1.Endpoint
	// Note is the wanted annotation [v1beta1.AnnotationApplied] of the Gateway,
	// written together with Endpoints; empty: none.
	Note string
	// Services to make, to change, and to delete. Adopt names those of the changed
	// ones whose Endpoints object must go first.
	Create []*corev1.Service
	Change []Change[corev1.Service]
	Adopt  map[string]bool
	Delete []*corev1.Service
	// EndpointSlices likewise.
	CreateSlices []*discoveryv1.EndpointSlice
	ChangeSlices []Change[discoveryv1.EndpointSlice]
	DeleteSlices []*discoveryv1.EndpointSlice
	// Conditions are those of the two types; one that is missing does not apply.
	// They have no times.
	Conditions []metav1.Condition
	// Again is after how long time alone changes the result; zero: never.
	Again time.Duration
}

// work is one run of For.
type work struct {
	*Input
	Result
	taken    map[string]bool   // names of Services
	all      []*corev1.Service // our tunnel Services, of all Gateways
	mine     []*corev1.Service // those of this Gateway
	shared   string            // balancer that several Services use
	ports    map[port]*corev1.Service
	problems []problem
	waiting  []string
	given    given
}

// port is one that a shared balancer listens at.
type port struct {
	protocol corev1.Protocol
	number   int32
}

// For returns what there should be for one Gateway. A Gateway that is gone is one
// with a deletion timestamp.
func For(in Input) Result {
	w := &work{Input: &in, taken: map[string]bool{}, ports: map[port]*corev1.Service{}}
	w.given = readGiven(in.Gateway.Annotations)
	w.Endpoints = gateway.CopyEndpoints(in.Gateway.Spec.Endpoints)
	w.Adopt = map[string]bool{}
	w.sortServices()

	var hubs []hub
	if in.Gateway.DeletionTimestamp == nil {
		hubs = activeHubs(in.Gateway, in.Settings)
	}
	wanted := map[string]bool{}
	if in.Gateway.Spec.ExposeType == v1beta1.ExposeLoadBalancer {
		if err := checkLabels(in.Gateway.Name); err != nil {
			w.problem(reasonName, "%v", err)
			hubs = nil
		}
		for _, h := range hubs {
			wanted[h.node] = true
		}
	}
	w.release(wanted)
	w.publicNodes(hubs)
	w.Note = w.given.String()
	switch in.Gateway.Spec.ExposeType {
	case v1beta1.ExposeLoadBalancer:
		for _, h := range hubs {
			w.balance(h)
		}
	case v1beta1.ExposePublicIP:
		for _, h := range hubs {
			if !w.isPublished(h.node) {
				w.problem(reasonAddress, "node %s has no external address, and its entry no publicIP", h.node)
			}
		}
	}
	w.slices(wanted)
	w.Hold = len(w.Create) > 0 || len(w.Adopt) > 0 || w.left(wanted)
	w.conditions(hubs)
	return w.Result
}

// left reports whether a Service of the Gateway stays.
func (w *work) left(wanted map[string]bool) bool {
	for _, s := range w.mine {
		if wanted[s.Labels[v1beta1.LabelEndpointsName]] && isOwn(s) && s.DeletionTimestamp == nil {
			return true
		}
	}
	return len(w.Delete) > 0
}
