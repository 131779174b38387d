package exposure

import (
	"encoding/json"
	"maps"

	"corax/control/api/v1beta1"
	"corax/control/kube/gateway"
)

// given are the addresses and names that our controller wrote into the entries of
// a Gateway because its nodes are exposed by their own. What differs from it is
// somebody else's, and stays.
type given map[string]string

// readGiven reads the note on a Gateway. One that cannot be read counts as none:
// then everything there is somebody else's.
func readGiven(annotations map[string]string) given {
	g := given{}
	if json.Unmarshal([]byte(annotations[v1beta1.AnnotationApplied]), &g) != nil || g == nil {
		return given{}
	}
	return g
}

// String is the form of the note; empty without any address.
func (g given) String() string {
	if len(g) == 0 {
		return ""
	}
	b, err := json.Marshal(map[string]string(g)) // sorted by key
	if err != nil {                              // impossible: strings only
		return ""
	}
	return string(b)
}

func keyOf(e *v1beta1.Endpoint) string { return e.Type + "/" + e.NodeName }

// publicOf returns the address of an entry, else its name.
func publicOf(e *v1beta1.Endpoint) string {
	if e.PublicIP != "" {
		return e.PublicIP
	}
	return e.Config[v1beta1.ConfigPublicHost]
}

// takeBack empties the entry if it has what was noted for it, and forgets it.
func (g given) takeBack(e *v1beta1.Endpoint) {
	ours, noted := g[keyOf(e)]
	delete(g, keyOf(e))
	switch {
	case !noted:
	case e.PublicIP == ours:
		e.PublicIP = ""
	case e.PublicIP == "" && e.Config[v1beta1.ConfigPublicHost] == ours:
		delete(e.Config, v1beta1.ConfigPublicHost)
	}
}

// give makes the entry say the node's own address, or its name, unless somebody
// else said one. A node that is not known keeps what it has.
func (g given) give(e *v1beta1.Endpoint, n Node, known bool) {
	if !known {
		return
	}
	g.takeBack(e)
	if publicOf(e) != "" {
		return
	}
	switch {
	case n.External.IsValid():
		e.PublicIP = n.External.String()
	case n.ExternalName != "":
		setConfig(e, v1beta1.ConfigPublicHost, n.ExternalName)
	default:
		return
	}
	g[keyOf(e)] = publicOf(e)
}

// publicNodes gives the entries of nodes that are exposed by their own addresses
// what these are now, and takes it back from those that are not any more. A node
// that may be elected later has its address too: it may have to take over while
// nobody can write it.
func (w *work) publicNodes(hubs []hub) {
	on := w.Gateway.Spec.ExposeType == v1beta1.ExposePublicIP && w.Gateway.DeletionTimestamp == nil
	listed := map[string]bool{}
	for i := range w.Endpoints {
		e := &w.Endpoints[i]
		listed[keyOf(e)] = true
		switch _, noted := w.given[keyOf(e)]; {
		case !on:
			w.given.takeBack(e)
		case v1beta1.CheckName(e.NodeName) == nil && (noted || isHub(hubs, e.NodeName) || modeOn(w.Gateway, w.Settings, e.Type)):
			n, known := w.Node(e.NodeName)
			w.given.give(e, n, known)
		}
	}
	maps.DeleteFunc(w.given, func(key, _ string) bool { return !listed[key] })
}

// Withdraw returns what there should be in the entries of a Gateway, and its note,
// when our controller goes: without the nodes' own addresses that it wrote there.
func Withdraw(g *gateway.Gateway) Result {
	noted := readGiven(g.Annotations)
	r := Result{Endpoints: gateway.CopyEndpoints(g.Spec.Endpoints)}
	for i := range r.Endpoints {
		noted.takeBack(&r.Endpoints[i])
	}
	return r
}

// isPublished reports whether an entry of the node has an address or a name.
func (w *work) isPublished(node string) bool {
	for i := range w.Endpoints {
		if e := &w.Endpoints[i]; e.NodeName == node && publicOf(e) != "" {
			return true
		}
	}
	return false
}
