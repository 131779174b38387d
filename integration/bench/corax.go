//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"corax/integration/lab"
)

func coraxMissing(path string) func() string {
	return func() string {
		if _, err := os.Stat(path); err != nil {
			return fmt.Sprintf("no program at %q (-corax)", path)
		}
		return ""
	}
}

// startCorax runs an agent on each of the four nodes.
func startCorax(path string) func(context.Context, *network) (gateways, error) {
	return func(ctx context.Context, n *network) (gateways, error) {
		path, err := filepath.Abs(path)
		if err != nil {
			return gateways{}, err
		}
		dir := filepath.Join(n.lab.Dir(), "gateways")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return gateways{}, err
		}
		agents := make(map[*lab.Node]*lab.Agent)
		keys := make(map[*lab.Node]string)
		for _, s := range n.sides {
			for _, node := range []*lab.Node{s.node, s.gw} {
				a, err := node.NewAgent(lab.AgentConfig{NodeIP: node.IP, Gateways: dir, Binary: path})
				if err != nil {
					return gateways{}, err
				}
				if keys[node], err = a.Key(ctx); err != nil {
					return gateways{}, err
				}
				agents[node] = a
			}
			if err := object(s, keys[s.gw]).Write(dir); err != nil {
				return gateways{}, err
			}
		}
		for _, a := range agents {
			if err := a.Start(); err != nil {
				return gateways{}, err
			}
		}
		for _, a := range agents {
			if err := a.WaitReady(ctx); err != nil {
				return gateways{}, err
			}
		}
		return startBoth(n, func(_ int, s *side) (*lab.Process, error) { return agents[s.gw].Process(), nil })
	}
}

// object returns the Gateway of a domain, a hub.
func object(s *side, key string) lab.Gateway {
	g := lab.Gateway{
		Name:       "domain-" + s.name,
		ExposeType: "PublicIP",
		Proxy:      true,
		Endpoints:  []lab.Endpoint{{Node: s.gw.Name, PublicIP: s.wanIP, PublicKey: key}},
	}
	for _, node := range []*lab.Node{s.gw, s.node} {
		g.Nodes = append(g.Nodes, lab.GatewayNode{
			Node: node.Name, IP: node.IP, Subnets: []netip.Prefix{node.Subnets[0].Masked()},
		})
	}
	return g
}
