//go:build linux

package tunnel_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"corax/integration/lab"
)

const (
	wgModule = "golang.zx2c4.com/wireguard"
	wgLink   = "wg0"
	wgPort   = 4500
	wgSecret = "a secret that both ends know"
)

// TestPlainWireGuard has a gateway node that runs wireguard-go of the module
// version that Corax uses, set up with stock wg, and no agent. Pods behind it
// and those of the other domain reach each other, whoever must be found first.
func TestPlainWireGuard(t *testing.T) {
	if _, err := exec.LookPath("wg"); err != nil {
		lacking(t, "no wg (package wireguard-tools)")
	}
	program := filepath.Join(t.TempDir(), "wireguard-go")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, wgModule)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build wireguard-go: %v: %s", err, out)
	}
	for _, c := range []struct {
		name   string
		plain  int // the domain whose gateway node has no agent
		secret string
	}{
		{"edge behind a NAT", 1, ""},
		{"hub, with a pre-shared key", 0, wgSecret},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startPlainPeer(t, program, c.plain, c.secret)
			all := slices.DeleteFunc(crossings(p.topo), func(c crossing) bool {
				return c.from.domain == p.domain && (c.from.host || c.from.node != p.gw) ||
					c.to.domain == p.domain && c.to.node != p.gw
			})
			eachCrossing(t, all, 4, reachSmall)
			eachCrossing(t, all, 2, func(ctx context.Context, c crossing) error {
				_, err := c.from.Transfer(ctx, netip.AddrPortFrom(c.addr, reachPort), reachBytes)
				return err
			})
			if p.other.Gateway().Detoured() {
				lab.LeftOut(t, noPingOut)
				lab.LeftOut(t, "wg show: its directory of sockets is root's")
				return
			}
			p.checkShow(t)
		})
	}
}

// plainPeer is a gateway node with wireguard-go, and the domain it talks to.
type plainPeer struct {
	topo          *lab.Topology
	domain, other *lab.Domain
	gw            *lab.Node
	key           string // public, base64
	otherKey      string
	secret        string
	preshared     [sha256.Size]byte
}

// startPlainPeer builds a cloud and an edge, where the gateway node of domain i
// is the plain peer, and the only node of its Gateway; agents run in the other.
func startPlainPeer(t *testing.T, program string, i int, secret string) *plainPeer {
	t.Helper()
	topo := lab.Standard(lab.ForTest(t), lab.Options{Edges: 1})
	serveReach(t, topo)
	p := &plainPeer{
		topo: topo, domain: topo.Domains[i], other: topo.Domains[1-i], gw: topo.Domains[i].Gateway(),
		secret: secret, preshared: sha256.Sum256([]byte(secret)),
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var args []string
	if secret != "" {
		file := filepath.Join(topo.Lab.Dir(), "psk")
		writeSecret(t, file, secret)
		args = []string{"--psk-file", file}
		if err := os.Chown(file, lab.DeprivedUser(), lab.DeprivedUser()); err != nil { // root may read it, too
			t.Fatal(err)
		}
	}
	if os.Getenv(lab.DatapathEnv) == "netstack" { // not the other, which needs a TUN
		topo.Rootless = func(n *lab.Node) bool { return i == 0 && n == p.other.Gateway() }
	}
	keys, err := topo.Prepare(ctx, args...)
	if err != nil {
		t.Fatal(err)
	}
	p.otherKey = keys[p.other.Gateway().Name]
	private := wgTool(t, "", "genkey")
	p.key = wgTool(t, private, "pubkey")
	keys[p.gw.Name] = p.key
	object := topo.Object(p.domain, keys)
	object.Nodes = object.Nodes[:1]
	if err := object.Write(topo.Gateways); err != nil {
		t.Fatal(err)
	}
	// The edge has to find the hub there, or it tries again after 5 seconds.
	if i == 0 {
		p.runWireGuard(ctx, t, program, private)
	}
	for _, a := range p.other.Agents {
		startAgent(ctx, t, a)
	}
	if i != 0 {
		p.runWireGuard(ctx, t, program, private)
	}
	return p
}

func writeSecret(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// wgTool runs a command of wg that needs no device.
func wgTool(t *testing.T, stdin, command string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "wg", command)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("wg %s: %v", command, err)
	}
	return strings.TrimSpace(string(out))
}

// runWireGuard starts wireguard-go on the plain peer's gateway node and sets it
// up as its manual says.
func (p *plainPeer) runWireGuard(ctx context.Context, t *testing.T, program, private string) {
	t.Helper()
	cmd := exec.Command(program, "--foreground", wgLink)
	cmd.Env = append(os.Environ(), "LOG_LEVEL=error")
	if _, err := p.gw.Start("wireguard-go", cmd); err != nil {
		t.Fatal(err)
	}
	p.waitDevice(ctx, t)
	keyFile := filepath.Join(p.gw.Dir(), "wg.key")
	writeSecret(t, keyFile, private)
	var subnets []string
	for _, n := range p.other.Nodes {
		for _, s := range n.Subnets {
			subnets = append(subnets, s.Masked().String())
			p.route(t, s)
		}
	}
	args := []string{
		"set", wgLink, "listen-port", strconv.Itoa(wgPort), "private-key", keyFile,
		"peer", p.otherKey, "allowed-ips", strings.Join(subnets, ","),
	}
	if p.secret != "" {
		file := filepath.Join(p.gw.Dir(), "wg.psk")
		writeSecret(t, file, base64.StdEncoding.EncodeToString(p.preshared[:]))
		args = append(args, "preshared-key", file)
	}
	if p.other == p.topo.Domains[0] {
		hub := netip.AddrPortFrom(p.other.Gateway().IP, wgPort)
		args = append(args, "endpoint", hub.String(), "persistent-keepalive", "25")
	}
	if _, err := p.gw.Run(ctx, "wg", args...); err != nil {
		t.Fatal(err)
	}
}

// waitDevice waits until wireguard-go answers, and takes its link up.
func (p *plainPeer) waitDevice(ctx context.Context, t *testing.T) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := p.gw.Run(ctx, "wg", "show", wgLink)
		if err == nil {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("wireguard-go does not answer: %v", err)
		}
	}
	p.gw.SetLink(wgLink, true)
}

func (p *plainPeer) route(t *testing.T, dst netip.Prefix) {
	t.Helper()
	link, err := p.gw.Netlink().LinkByName(wgLink)
	if err != nil {
		t.Fatal(err)
	}
	to := &net.IPNet{IP: dst.Masked().Addr().AsSlice(), Mask: net.CIDRMask(dst.Bits(), dst.Addr().BitLen())}
	if err := p.gw.Netlink().RouteReplace(&netlink.Route{Dst: to, LinkIndex: link.Attrs().Index}); err != nil {
		t.Fatalf("route to %s on %s: %v", dst, p.gw.Name, err)
	}
}

// checkShow reads our device with stock wg, on the gateway node with the agent.
func (p *plainPeer) checkShow(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	host := p.other.Gateway().Host
	show := func(args ...string) string {
		out, err := host.Run(ctx, "wg", append([]string{"show"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	if got := show("interfaces"); got != "corax0" {
		t.Errorf("wg show interfaces: %q", got)
	}
	text := show("corax0")
	t.Logf("wg show corax0:\n%s", text)
	var allowed []string
	for _, s := range p.gw.Subnets {
		allowed = append(allowed, s.Masked().String())
	}
	for what, pattern := range map[string]string{
		"own key":        `(?m)^  public key: ` + regexp.QuoteMeta(p.otherKey) + `$`,
		"private key":    `(?m)^  private key: \(hidden\)$`,
		"port":           `(?m)^  listening port: 4500$`,
		"peer":           `(?m)^peer: ` + regexp.QuoteMeta(p.key) + `$`,
		"endpoint":       `(?m)^  endpoint: ` + regexp.QuoteMeta(p.publicIP().String()) + `:[1-9]\d*$`,
		"handshake":      `(?m)^  latest handshake: .*(second|minute|Now)`,
		"transfer":       `(?m)^  transfer: [\d.]+ MiB received, [\d.]+ MiB sent$`,
		"allowed subnet": `(?m)^  allowed ips: .*` + regexp.QuoteMeta(allowed[0]),
		"allowed v6":     `(?m)^  allowed ips: .*` + regexp.QuoteMeta(allowed[1]),
	} {
		if !regexp.MustCompile(pattern).MatchString(text) {
			t.Errorf("wg show corax0 lacks %s: %s", what, pattern)
		}
	}
	if hidden := strings.Contains(text, "preshared key: (hidden)"); hidden != (p.secret != "") {
		t.Errorf("wg show corax0 says there is a pre-shared key: %t", hidden)
	}
	if n := strings.Count(text, "peer: "); n != 1 {
		t.Errorf("wg show corax0 has %d peers, want 1", n)
	}
	if err := p.noSecrets(text); err != nil {
		t.Error(err)
	}
}

// publicIP is where the plain peer's datagrams come from.
func (p *plainPeer) publicIP() netip.Addr {
	if p.domain == p.topo.Domains[0] {
		return p.gw.IP
	}
	return netip.MustParseAddr("203.0.113.10") // the edge's router
}

// noSecrets looks for our private key and the pre-shared key, as wg writes them
// and as its user API does.
func (p *plainPeer) noSecrets(text string) error {
	agent := p.other.Agents[0]
	b, err := os.ReadFile(filepath.Join(agent.StateDir(), "private.key"))
	if err != nil {
		return err
	}
	private, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(b)))
	if err != nil || len(private) != sha256.Size {
		return fmt.Errorf("%s: not a key: %w", agent.StateDir(), err)
	}
	for what, secret := range map[string][]byte{"private": private, "pre-shared": p.preshared[:]} {
		if strings.Contains(text, base64.StdEncoding.EncodeToString(secret)) || strings.Contains(text, hex.EncodeToString(secret)) {
			return fmt.Errorf("wg show corax0 shows the %s key", what)
		}
	}
	return nil
}
