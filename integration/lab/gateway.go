//go:build linux

package lab

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"
)

// Gateway is a Gateway object (raven.openyurt.io/v1beta1) as far as labs use it.
type Gateway struct {
	Name        string
	ExposeType  string
	Annotations map[string]string
	// Replicas of type tunnel; nil means 1.
	Replicas  *int
	Endpoints []Endpoint
	Nodes     []GatewayNode
	// Active are the names of the active tunnel endpoints; nil leaves
	// status.activeEndpoints out, so that agents elect.
	Active []string
	// Proxy makes each endpoint one of type proxy, too, all of them active.
	Proxy bool
}

// Endpoint is an entry of spec.endpoints, of type tunnel.
type Endpoint struct {
	Node      string
	PublicIP  netip.Addr
	Port      int // 0 means 4500
	UnderNAT  bool
	PublicKey string
	Config    map[string]string // further keys
}

// GatewayNode is an entry of status.nodes.
type GatewayNode struct {
	Node    string
	IP      netip.Addr
	Subnets []netip.Prefix
}

// YAML renders the object.
func (g Gateway) YAML() ([]byte, error) {
	type object = map[string]any
	meta := object{"name": g.Name}
	if len(g.Annotations) > 0 {
		meta["annotations"] = g.Annotations
	}
	replicas := 1
	if g.Replicas != nil {
		replicas = *g.Replicas
	}
	var endpoints, active, nodes []object
	for _, e := range g.Endpoints {
		o := e.object()
		endpoints = append(endpoints, o)
		for _, name := range g.Active {
			if name == e.Node {
				active = append(active, o)
			}
		}
	}
	for _, n := range g.Nodes {
		var subnets []string
		for _, s := range n.Subnets {
			subnets = append(subnets, s.Masked().String())
		}
		nodes = append(nodes, object{"nodeName": n.Node, "privateIP": n.IP.String(), "subnets": subnets})
	}
	spec := object{"tunnelConfig": object{"Replicas": replicas}}
	if g.Proxy {
		for _, e := range g.Endpoints {
			o := e.object()
			o["type"] = "proxy"
			endpoints = append(endpoints, o)
		}
		spec["proxyConfig"] = object{"Replicas": len(g.Endpoints)}
	}
	spec["endpoints"] = endpoints
	if g.ExposeType != "" {
		spec["exposeType"] = g.ExposeType
	}
	status := object{"nodes": nodes}
	if g.Active != nil {
		status["activeEndpoints"] = active
	}
	return yaml.Marshal(object{
		"apiVersion": "raven.openyurt.io/v1beta1", "kind": "Gateway",
		"metadata": meta, "spec": spec, "status": status,
	})
}

func (e Endpoint) object() map[string]any {
	config := map[string]string{}
	for k, v := range e.Config {
		config[k] = v
	}
	if e.PublicKey != "" {
		config["publicKey"] = e.PublicKey
	}
	port := e.Port
	if port == 0 {
		port = 4500
	}
	o := map[string]any{
		"nodeName": e.Node, "type": "tunnel", "port": port, "underNAT": e.UnderNAT, "config": config,
	}
	if e.PublicIP.IsValid() {
		o["publicIP"] = e.PublicIP.String()
	}
	return o
}

// Write puts the object into a directory as <name>.yaml, at once for whoever
// watches it.
func (g Gateway) Write(dir string) error {
	b, err := g.YAML()
	if err != nil {
		return fmt.Errorf("lab: gateway %s: %w", g.Name, err)
	}
	tmp := filepath.Join(dir, "."+g.Name+".tmp")
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, g.Name+".yaml")); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}
