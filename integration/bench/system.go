//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"corax/integration/lab"
)

// system is one way to connect the two domains.
type system struct {
	name string
	// missing says in one line why the system cannot run here; empty: it can.
	missing func() string
	// start connects the domains and returns the gateways' processes; nil ones
	// when there are none.
	start func(ctx context.Context, n *network) (gateways, error)
}

// gateways are the tunnel processes of both gateway nodes.
type gateways [2]*lab.Process

// The names of the systems that goals and ratios speak of.
const (
	nameKernel    = "kernel"
	nameWireGuard = "wireguard-go"
	nameCorax     = "corax"
	nameLibipsec  = "libipsec"
)

// systems returns all systems in the order of the table.
func systems(corax string) []system {
	wg := &wireguardGo{}
	return []system{
		{nameKernel, installed(), startKernel},
		{nameWireGuard, wg.build, wg.start(nil)},
		{nameWireGuard + "-1", wg.build, wg.start([]string{"GOMAXPROCS=1"})},
		{nameCorax, coraxMissing(corax), startCorax(corax)},
		{"nebula", asRoot(installed("nebula", "nebula-cert")), startNebula},
		{"openvpn", asRoot(installed("openvpn")), startOpenVPN},
		{nameLibipsec, asRoot(installed(charonPath, "swanctl", libipsecPath)), startLibipsec},
	}
}

// pick returns the systems with the given names, or all for "all". name=binary is
// another build of corax, to measure it in turns with the first.
func pick(all []system, names string) ([]system, error) {
	if names == "all" {
		return all, nil
	}
	var picked []system
	for _, name := range strings.Split(names, ",") {
		if build, binary, ok := strings.Cut(name, "="); ok && build != "" {
			picked = append(picked, system{build, coraxMissing(binary), startCorax(binary)})
			continue
		}
		found := false
		for _, s := range all {
			if s.name == name {
				picked = append(picked, s)
				found = true
			}
		}
		if !found {
			return nil, fmt.Errorf("unknown system %q", name)
		}
	}
	return picked, nil
}

// installed returns a check that programs and files (absolute paths) are there.
func installed(names ...string) func() string {
	return func() string {
		for _, name := range names {
			if strings.HasPrefix(name, "/") {
				if _, err := os.Stat(name); err != nil {
					return name + " is not installed"
				}
			} else if _, err := exec.LookPath(name); err != nil {
				return name + " is not installed"
			}
		}
		return ""
	}
}

// asRoot adds to a check that the process is root of the whole machine: these
// programs drop privileges or own paths that a user namespace does not.
func asRoot(check func() string) func() string {
	return func() string {
		if b, err := os.ReadFile("/proc/self/uid_map"); err == nil {
			if f := strings.Fields(string(b)); len(f) != 3 || f[2] != "4294967295" {
				return "it needs root"
			}
		}
		return check()
	}
}

// startKernel connects the domains by routing alone, the limit of everything.
func startKernel(_ context.Context, n *network) (gateways, error) {
	for _, s := range n.sides {
		for _, dst := range n.other(s).subnets() {
			n.wan.Route(lab.Route{Dst: dst, Via: n.other(s).wanIP})
		}
		s.gw.Route(lab.Route{Dst: s.node.Subnets[0].Masked(), Via: s.node.IP})
	}
	return gateways{}, n.lab.Err()
}

// startBoth runs f for each side.
func startBoth(n *network, f func(i int, s *side) (*lab.Process, error)) (gateways, error) {
	var g gateways
	for i, s := range n.sides {
		p, err := f(i, s)
		if err != nil {
			return g, fmt.Errorf("%s: %w", s.gw.Name, err)
		}
		g[i] = p
	}
	return g, nil
}
