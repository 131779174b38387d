package wg

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"corax/dataplane"
	"corax/dataplane/key"
)

// run runs d until the test ends.
func run(t *testing.T, d *Device) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func discard() dataplane.Sender { return dataplane.SenderFunc(func([]dataplane.Packet) {}) }

// checkSecrets looks for keys in a text, in the forms they might have.
func checkSecrets(t *testing.T, text string, private key.Private, more ...[]byte) {
	t.Helper()
	raw := private.Bytes()
	for _, secret := range append(more, raw[:]) {
		for _, form := range []string{
			string(secret), hex.EncodeToString(secret), base64.StdEncoding.EncodeToString(secret), fmt.Sprint(secret),
		} {
			if strings.Contains(text, form) {
				t.Error("a key was logged")
			}
		}
	}
}

func TestConfigErrors(t *testing.T) {
	good := Config{PrivateKey: newKey(t), MTU: 1408, Receive: discard(), Name: "corax0"}
	for _, c := range []struct {
		name   string
		change func(*Config)
	}{
		{"no key", func(c *Config) { c.PrivateKey = key.Private{} }},
		{"no receiver", func(c *Config) { c.Receive = nil }},
		{"MTU too small", func(c *Config) { c.MTU = 575 }},
		{"MTU too big", func(c *Config) { c.MTU = 1 << 16 }},
		{"no name", func(c *Config) { c.UAPI, c.Name = true, "" }},
		{"name with a path", func(c *Config) { c.UAPI, c.Name = true, "../x" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := good
			c.change(&cfg)
			if d, err := New(cfg); err == nil {
				_ = d.Close()
				t.Error("no error")
			}
		})
	}
}

func TestPortTaken(t *testing.T) {
	a := newNode(t, "10.0.0.1")
	_, err := New(Config{PrivateKey: newKey(t), MTU: 1408, Receive: discard(), Port: a.Port()})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprint(a.Port())) || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("error %v does not name the port and the cause", err)
	}
}

func TestCloseFreesPort(t *testing.T) {
	cfg := Config{PrivateKey: newKey(t), MTU: 1408, Receive: discard()}
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Port = d.Port()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := d.Run(context.Background()); err == nil {
		t.Error("Run after Close works")
	}
}

// TestDownUp takes the device down and up: same port, and everything goes on.
func TestDownUp(t *testing.T) {
	a, b := pair(t, "127.0.0.1")
	exchange(t, a, b, 1)
	port := b.Port()
	for range 2 {
		if err := b.dev.Load().Down(); err != nil {
			t.Fatal(err)
		}
		if err := b.dev.Load().Up(); err != nil {
			t.Fatal(err)
		}
	}
	if b.Port() != port {
		t.Errorf("port %d, was %d", b.Port(), port)
	}
	// The session was lost on one side: b starts another.
	exchange(t, b, a, 2)
	exchange(t, a, b, 3)
}

func TestSetMTU(t *testing.T) {
	a, b := pair(t, "127.0.0.1")
	exchange(t, a, b, 1)
	a.SetMTU(1300)
	if mtu, err := a.link.MTU(); mtu != 1300 || err != nil {
		t.Errorf("MTU %d, %v", mtu, err)
	}
	eventually(t, "the device does not hear of it", func() bool { return strings.Contains(a.logs.String(), "MTU updated: 1300") })
	exchange(t, a, b, 2)
}

// TestLeak runs devices and ends them: no goroutine and no socket stays.
func TestLeak(t *testing.T) {
	dir := t.TempDir()
	once := func() {
		withSocket := func(name string) func(*Config) {
			return func(c *Config) { c.UAPI, c.Name, c.uapiDir = true, name, dir }
		}
		a := newNode(t, "10.0.0.1", withSocket("a"))
		b := newNode(t, "10.0.0.2", withSocket("b"))
		mustPeers(t, a, b.peer(b.at("127.0.0.1")))
		mustPeers(t, b, a.peer(netip.AddrPort{}))
		exchange(t, a, b, 1)
		for _, n := range []*node{a, b} {
			if err := n.stop(); err != nil {
				t.Fatal(err)
			}
			checkSecrets(t, n.logs.String(), n.key)
		}
	}
	once()
	files := openFiles(t)
	for range 3 {
		once()
	}
	// wireguard-go's workers end by themselves shortly after its Close.
	eventually(t, "goroutines stay", func() bool {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		return !bytes.Contains(stacks, []byte("wireguard/device.")) && !bytes.Contains(stacks, []byte("wg.(*Device)"))
	})
	if now := openFiles(t); now > files {
		t.Errorf("%d open files, were %d", now, files)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0 // no /proc on this system
	}
	return len(list)
}

// TestUserAPI reads and writes through the socket with the library of the `wg`
// tool's authors. It looks in one fixed directory only.
func TestUserAPI(t *testing.T) {
	if err := os.MkdirAll(uapiDir, 0o755); err != nil {
		skip(t, "cannot make "+uapiDir)
	}
	name := fmt.Sprintf("cx%d", os.Getpid())
	a := newNode(t, "10.0.0.1", func(c *Config) { c.UAPI, c.Name = true, name })
	b := newNode(t, "10.0.0.2")
	p := b.peer(netip.AddrPort{})
	mustPeers(t, a, p)
	mustPeers(t, b, a.peer(netip.AddrPort{}))
	path := filepath.Join(uapiDir, name+".sock")
	eventually(t, "no socket", func() bool { _, err := os.Stat(path); return err == nil })
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket mode %v, %v", info.Mode(), err)
	}
	c, err := wgctrl.New()
	if err != nil {
		skip(t, "wgctrl: "+err.Error())
	}
	defer c.Close()
	get := func() wgtypes.Peer {
		t.Helper()
		d, err := c.Device(name)
		if err != nil {
			t.Fatal(err)
		}
		if d.ListenPort != int(a.Port()) || d.PublicKey != wgtypes.Key(a.key.Public()) || len(d.Peers) != 1 {
			t.Fatalf("device %+v", d)
		}
		return d.Peers[0]
	}
	if got := get(); got.PublicKey != wgtypes.Key(b.key.Public()) || len(got.AllowedIPs) != 1 || !got.LastHandshakeTime.IsZero() {
		t.Errorf("peer %+v", got)
	}

	// `wg set`: an endpoint before the first handshake, and one in a session.
	set := func(to netip.AddrPort) {
		t.Helper()
		err := c.ConfigureDevice(name, wgtypes.Config{Peers: []wgtypes.PeerConfig{{
			PublicKey: wgtypes.Key(b.key.Public()), UpdateOnly: true, Endpoint: net.UDPAddrFromAddrPort(to),
		}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, ip := range []string{"127.0.0.1", "127.0.0.2"} {
		set(b.at(ip))
		exchange(t, a, b, uint32(10*i))
		if w := a.table.get(p.PublicKey).path.Load(); w == nil || w.to != b.at(ip) {
			t.Errorf("path after wg set is not %v", b.at(ip))
		}
		exchange(t, b, a, uint32(10*i+1))
		exchange(t, a, b, uint32(10*i+2))
		if got := get(); unmap(got.Endpoint.AddrPort()) != b.at(ip) || got.LastHandshakeTime.IsZero() {
			t.Errorf("peer %+v", got)
		}
	}

	// A second process does not take the socket away.
	if _, err := listenUAPI(uapiDir, name); err == nil {
		t.Error("the socket of a live device was replaced")
	}
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket stays")
	}
}

// TestStalledClient: a user API client that stops in the middle of a request
// does not keep Run from ending.
func TestStalledClient(t *testing.T) {
	dir := t.TempDir()
	a := newNode(t, "10.0.0.1", func(c *Config) { c.UAPI, c.Name, c.uapiDir = true, "x", dir })
	path := filepath.Join(dir, "x.sock")
	eventually(t, "no socket", func() bool { _, err := os.Stat(path); return err == nil })
	c := dialUnix(t, path)
	if _, err := c.Write([]byte("set=1\npreshared_keyABCDEF\n")); err != nil { // refused, not logged
		t.Fatal(err)
	}
	eventually(t, "no trace in the log", func() bool { return strings.Contains(a.logs.String(), "user API request failed") })
	if strings.Contains(a.logs.String(), "ABCDEF") {
		t.Error("the text of a request was logged")
	}
	if _, err := dialUnix(t, path).Write([]byte("set=1\n")); err != nil {
		t.Fatal(err)
	}
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
}

// TestUserAPIUnavailable: without the socket the device works all the same.
func TestUserAPIUnavailable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a, b := pair(t, "127.0.0.1", func(c *Config) { c.UAPI, c.Name, c.uapiDir = true, "x", file })
	exchange(t, a, b, 1)
	if n := strings.Count(a.logs.String(), "no user API socket"); n != 1 {
		t.Errorf("%d log lines about it, want 1", n)
	}
}

// TestStaleSocket: the socket of a dead process is replaced.
func TestStaleSocket(t *testing.T) {
	dir := t.TempDir()
	dead, err := listenUAPI(dir, "x")
	if err != nil {
		t.Fatal(err)
	}
	if err := dead.l.Close(); err != nil { // as a SIGKILL does: the file stays
		t.Fatal(err)
	}
	u, err := listenUAPI(dir, "x")
	if err != nil {
		t.Fatal(err)
	}
	dead.close() // does not remove what is another's now
	if c := dialUnix(t, filepath.Join(dir, "x.sock")); c == nil {
		t.Error("the new socket is not there")
	}
	u.close()
}

// TestStockPeer exchanges packets with an unchanged wireguard-go device.
func TestStockPeer(t *testing.T) {
	a := newNode(t, "10.0.0.1")
	them := newKey(t)
	raw, pub := them.Bytes(), a.key.Public()
	tun := tuntest.NewChannelTUN()
	stock := device.NewDevice(tun.TUN(), conn.NewDefaultBind(), device.NewLogger(device.LogLevelSilent, ""))
	defer stock.Close()
	mustPeers(t, a, dataplane.Peer{PublicKey: them.Public(), AllowedIPs: prefixes("10.0.0.2/32")})
	err := stock.IpcSet(fmt.Sprintf("private_key=%x\nlisten_port=0\npublic_key=%x\nendpoint=%v\nallowed_ip=10.0.0.1/32\n",
		raw, pub[:], a.at("127.0.0.1")))
	if err != nil {
		t.Fatal(err)
	}
	if err := stock.Up(); err != nil {
		t.Fatal(err)
	}
	for mark := range uint32(5) {
		out := packet(inner2, inner1, 200, mark)
		select {
		case tun.Outbound <- out:
		case <-time.After(patience):
			t.Fatal("the stock device takes no packet")
		}
		expect(t, a, out)
		back := packet(inner1, inner2, 200, mark)
		send(a, append([]byte(nil), back...))
		select {
		case got := <-tun.Inbound:
			if string(got) != string(back) {
				t.Fatal("another packet came out")
			}
		case <-time.After(patience):
			t.Fatal("the packet did not come out of the stock device")
		}
	}
}

func dialUnix(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
