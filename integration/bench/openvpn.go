//go:build linux

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"corax/integration/lab"
)

const openvpnPort = "1194"

// startOpenVPN connects the gateways by OpenVPN, point to point over UDP with
// TLS, AES-256-GCM and without the kernel module, and with the kernel's VXLAN
// behind it.
func startOpenVPN(ctx context.Context, n *network) (gateways, error) {
	if err := n.startRaven(); err != nil {
		return gateways{}, err
	}
	var prints [2]string
	for i, s := range n.sides {
		p, err := makeCertificate(filepath.Join(s.gw.Dir(), "openvpn"))
		if err != nil {
			return gateways{}, err
		}
		prints[i] = p
	}
	return startBoth(n, func(i int, s *side) (*lab.Process, error) {
		base := filepath.Join(s.gw.Dir(), "openvpn")
		role := [2]string{"--tls-server", "--tls-client"}[i]
		args := []string{
			role, "--proto", "udp4", "--local", s.wanIP.String(), "--lport", openvpnPort,
			"--remote", n.other(s).wanIP.String(), "--rport", openvpnPort,
			"--dev", "tun0", "--dev-type", "tun", "--ifconfig", insideAddr(i).String(), insideAddr(1 - i).String(),
			"--cert", base + ".crt", "--key", base + ".key", "--dh", "none", "--peer-fingerprint", prints[1-i],
			"--data-ciphers", "AES-256-GCM", "--cipher", "AES-256-GCM", "--disable-dco",
			"--tun-mtu", fmt.Sprint(tunnelMTU), "--mssfix", "0", "--verb", "1",
		}
		p, err := s.gw.Start("openvpn", exec.Command("openvpn", args...))
		if err != nil {
			return nil, err
		}
		return p, n.setUpTunnel(ctx, s, "tun0")
	})
}

// makeCertificate writes a key and a self-signed certificate to base.key and
// base.crt, and returns the certificate's fingerprint.
func makeCertificate(base string) (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "bench"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	crt, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(crt)
	return strings.ReplaceAll(fmt.Sprintf("% X", sum[:]), " ", ":"), errors.Join(
		os.WriteFile(base+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600),
		os.WriteFile(base+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: crt}), 0o600),
	)
}
