package kube

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/types"

	"corax/control/api/v1beta1"
	"corax/control/kube/gateway"
)

const (
	patchJSON  = types.JSONPatchType
	patchMerge = types.MergePatchType
)

// Entry is what an agent says of itself in its entries of spec.endpoints. A field
// that is empty leaves what stands there alone, but for NextPublicKey.
type Entry struct {
	// PublicKey is the WireGuard key in base64.
	PublicKey string
	// NextPublicKey is the key that the node will use next. When PublicKey is set
	// and this is empty, the one that stands there is removed.
	NextPublicKey string
	// NATType is one of v1beta1's NAT constants.
	NATType string
	// PublicIP and PublicPort are where the endpoint is reached from outside.
	PublicIP   string
	PublicPort int
	// PublicHost is the DNS name of the place, when PublicIP is empty. A publicIP
	// that stands there is then removed: it would count.
	PublicHost string
	// TLSPort is the TCP port of the tunnel fallback. The default is not written
	// where nothing stands.
	TLSPort int
}

// document is a Gateway as it stands in the API server, as far as a patch needs
// it: a patch must test what really stands there, "" and an absent field told
// apart.
type document struct {
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		ExposeType string           `json:"exposeType"`
		Endpoints  []map[string]any `json:"endpoints"`
	} `json:"spec"`
}

// patch returns the JSON patch that makes node's entries in a Gateway, as it
// stands in the API server, say e; nil when they do, or when it has none. It
// changes nothing of other entries, and is refused (422) when another index than
// the one that was read has the entry, or a field changed since. How a load
// balancer is reached is what balancers, by Gateway, say, and of one that is not
// among them somebody else's to say.
func patch(g document, node string, e Entry, balancers map[string]balancer) []gateway.Op {
	if g.Spec.ExposeType == v1beta1.ExposeLoadBalancer {
		e = balancers[g.Metadata.Name].into(e)
	}
	var ops []gateway.Op
	seen := map[string]bool{}
	for i, entry := range g.Spec.Endpoints {
		kind, _ := entry["type"].(string)
		if entry["nodeName"] != node || kind != v1beta1.TypeProxy && kind != v1beta1.TypeTunnel || seen[kind] {
			continue
		}
		seen[kind] = true
		changes := entryOps(i, entry, e)
		if len(changes) == 0 {
			continue
		}
		ops = append(ops,
			gateway.Op{Op: "test", Path: gateway.Pointer("spec", "endpoints", i, "nodeName"), Value: node},
			gateway.Op{Op: "test", Path: gateway.Pointer("spec", "endpoints", i, "type"), Value: kind})
		ops = append(ops, changes...)
	}
	return ops
}

// entryOps are the changes of one entry, each behind a test of what stands there.
func entryOps(i int, entry map[string]any, e Entry) []gateway.Op {
	var ops []gateway.Op
	set := func(old, value any, path ...any) {
		at := gateway.Pointer(append([]any{"spec", "endpoints", i}, path...)...)
		ops = append(ops, gateway.Op{Op: "test", Path: at, Value: old}, gateway.Op{Op: "add", Path: at, Value: value})
	}
	if e.NATType != "" && entry["natType"] != e.NATType {
		set(entry["natType"], e.NATType, "natType")
	}
	switch was, there := entry["publicIP"]; {
	case e.PublicIP != "" && was != e.PublicIP:
		set(was, e.PublicIP, "publicIP")
	case e.PublicIP == "" && e.PublicHost != "" && there && was != "":
		at := gateway.Pointer("spec", "endpoints", i, "publicIP")
		ops = append(ops, gateway.Op{Op: "test", Path: at, Value: was}, gateway.Op{Op: "remove", Path: at})
	}
	if e.PublicPort != 0 && fmt.Sprint(entry["publicPort"]) != strconv.Itoa(e.PublicPort) {
		set(entry["publicPort"], e.PublicPort, "publicPort")
	}
	config, ok := entry["config"].(map[string]any)
	wanted := e.config(config)
	if len(wanted) == 0 {
		return ops
	}
	if !ok {
		set(nil, map[string]any{}, "config")
	}
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		if value := wanted[key]; value != "" {
			set(config[key], value, "config", key)
			continue
		}
		at := gateway.Pointer("spec", "endpoints", i, "config", key)
		ops = append(ops, gateway.Op{Op: "test", Path: at, Value: config[key]}, gateway.Op{Op: "remove", Path: at})
	}
	return ops
}

// config returns the keys of config that must change, and to what; "" removes.
func (e Entry) config(now map[string]any) map[string]string {
	wanted := map[string]string{}
	differ := func(key, value string) {
		if now[key] != value {
			wanted[key] = value
		}
	}
	if e.PublicKey != "" {
		differ(v1beta1.ConfigPublicKey, e.PublicKey)
		if e.NextPublicKey != "" {
			differ(v1beta1.ConfigNextPublicKey, e.NextPublicKey)
		} else if _, there := now[v1beta1.ConfigNextPublicKey]; there {
			wanted[v1beta1.ConfigNextPublicKey] = ""
		}
	}
	if e.PublicIP == "" && e.PublicHost != "" {
		differ(v1beta1.ConfigPublicHost, e.PublicHost)
	}
	if e.TLSPort != 0 {
		if _, there := now[v1beta1.ConfigTLSPort]; there || e.TLSPort != v1beta1.PortTLSFallback {
			differ(v1beta1.ConfigTLSPort, strconv.Itoa(e.TLSPort))
		}
	}
	return wanted
}

// stands reports whether node's entries in g, as a reflector has it, say e.
func stands(g *v1beta1.Gateway, node string, e Entry, balancers map[string]balancer) bool {
	b, err := json.Marshal(g.Spec.Endpoints)
	if err != nil {
		return true
	}
	d := document{}
	d.Metadata.Name, d.Spec.ExposeType = g.Metadata.Name, g.Spec.ExposeType
	if json.Unmarshal(b, &d.Spec.Endpoints) != nil {
		return true
	}
	return len(patch(d, node, e, balancers)) == 0
}
