//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"corax/integration/lab"
)

const nebulaPort = 4242

// insideAddr is the address of a gateway inside a tunnel of a program that wants
// one.
func insideAddr(side int) netip.Addr { return netip.AddrFrom4([4]byte{10, 99, 0, byte(side + 1)}) }

// startNebula connects the gateways by nebula with the other domain's subnets as
// unsafe routes, without lighthouses, and with the kernel's VXLAN behind it.
func startNebula(ctx context.Context, n *network) (gateways, error) {
	if err := n.startRaven(); err != nil {
		return gateways{}, err
	}
	ca := filepath.Join(n.lab.Dir(), "ca")
	if _, err := n.wan.Run(ctx, "nebula-cert", "ca", "-name", "bench", "-out-crt", ca+".crt", "-out-key", ca+".key"); err != nil {
		return gateways{}, err
	}
	return startBoth(n, func(i int, s *side) (*lab.Process, error) {
		base := filepath.Join(s.gw.Dir(), "nebula")
		if _, err := s.gw.Run(ctx, "nebula-cert", "sign", "-name", s.gw.Name,
			"-ip", netip.PrefixFrom(insideAddr(i), 24).String(), "-subnets", joinPrefixes(s.subnets()),
			"-ca-crt", ca+".crt", "-ca-key", ca+".key", "-out-crt", base+".crt", "-out-key", base+".key"); err != nil {
			return nil, err
		}
		if err := os.WriteFile(base+".yaml", []byte(nebulaConfig(n, i, ca, base)), 0o600); err != nil {
			return nil, err
		}
		return s.gw.Start("nebula", exec.Command("nebula", "-config", base+".yaml"))
	})
}

// nebulaConfig leaves the cipher at its default, AES-256-GCM.
func nebulaConfig(n *network, i int, ca, base string) string {
	other := n.sides[1-i]
	var routes strings.Builder
	for _, dst := range other.subnets() {
		fmt.Fprintf(&routes, "    - {route: %s, via: %s, mtu: %d}\n", dst, insideAddr(1-i), tunnelMTU)
	}
	return fmt.Sprintf(`
pki: {ca: %s.crt, cert: %s.crt, key: %s.key}
static_host_map: {"%s": ["%s:%d"]}
lighthouse: {am_lighthouse: false, hosts: []}
listen: {host: 0.0.0.0, port: %d}
logging: {level: warning}
tun:
  dev: nebula0
  mtu: %d
  unsafe_routes:
%sfirewall:
  default_local_cidr_any: true
  outbound: [{port: any, proto: any, host: any}]
  inbound: [{port: any, proto: any, host: any}]
`, ca, base, base, insideAddr(1-i), other.wanIP, nebulaPort, nebulaPort, tunnelMTU, routes.String())
}

func joinPrefixes(prefixes []netip.Prefix) string {
	text := make([]string, len(prefixes))
	for i, p := range prefixes {
		text[i] = p.String()
	}
	return strings.Join(text, ",")
}
