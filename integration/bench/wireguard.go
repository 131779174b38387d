//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"corax/integration/lab"
)

const (
	wireguardModule = "golang.zx2c4.com/wireguard"
	wireguardPort   = 51820
)

// wireguardGo runs wireguard-go, built from the module version that Corax uses,
// with the kernel's VXLAN between node and gateway.
type wireguardGo struct {
	path string
}

// build makes the program once; the result says why that failed.
func (w *wireguardGo) build() string {
	if w.path != "" {
		return ""
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return err.Error()
	}
	path := filepath.Join(cache, "corax-bench", "wireguard-go")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", path, wireguardModule)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Sprintf("go build %s: %v: %s", wireguardModule, err, out)
	}
	w.path = path
	return ""
}

func (w *wireguardGo) start(env []string) func(context.Context, *network) (gateways, error) {
	return func(ctx context.Context, n *network) (gateways, error) {
		if err := n.startRaven(); err != nil {
			return gateways{}, err
		}
		var keys [2]*ecdh.PrivateKey
		for i := range keys {
			k, err := ecdh.X25519().GenerateKey(rand.Reader)
			if err != nil {
				return gateways{}, err
			}
			keys[i] = k
		}
		return startBoth(n, func(i int, s *side) (*lab.Process, error) {
			cmd := exec.Command(w.path, "--foreground", "wg0")
			cmd.Env = append(append(os.Environ(), "LOG_LEVEL=error"), env...)
			p, err := s.gw.Start("wireguard-go", cmd)
			if err != nil {
				return nil, err
			}
			if err := until(ctx, func() error {
				return configure(n, s, keys[i], keys[1-i].PublicKey())
			}); err != nil {
				return nil, err
			}
			return p, n.setUpTunnel(ctx, s, "wg0")
		})
	}
}

// configure speaks the cross-platform user API of WireGuard to the device of a
// gateway.
func configure(n *network, s *side, own *ecdh.PrivateKey, peer *ecdh.PublicKey) error {
	var c net.Conn
	if err := s.gw.Do(func() (err error) { // sees the host's own /run
		c, err = net.Dial("unix", "/run/wireguard/wg0.sock")
		return err
	}); err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	other := n.other(s)
	var b strings.Builder
	fmt.Fprintf(&b, "set=1\nprivate_key=%s\nlisten_port=%d\n", hex.EncodeToString(own.Bytes()), wireguardPort)
	fmt.Fprintf(&b, "public_key=%s\nendpoint=%s:%d\n", hex.EncodeToString(peer.Bytes()), other.wanIP, wireguardPort)
	for _, dst := range other.subnets() {
		fmt.Fprintf(&b, "allowed_ip=%s\n", dst)
	}
	if _, err := c.Write([]byte(b.String() + "\n")); err != nil {
		return err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && strings.TrimSpace(answer) != "errno=0" {
		err = errors.New("wireguard-go answers " + strings.TrimSpace(answer))
	}
	return err
}
