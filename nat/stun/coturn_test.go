package stun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tool returns the path of a program of coturn.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path
	case os.Getenv("CI") != "":
		t.Fatalf("%s is missing: install coturn", name)
	}
	t.Skipf("%s is missing: install coturn", name)
	return ""
}

func listen(t *testing.T, addr string) net.PacketConn {
	t.Helper()
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func local(c net.PacketConn) netip.AddrPort { return unmap(c.LocalAddr().(*net.UDPAddr).AddrPort()) }

// freePorts returns two ports that are free at both loopback addresses. coturn
// cannot choose some itself.
func freePorts(t *testing.T) (a, b uint16) {
	t.Helper()
	var out []uint16
	for range 50 {
		c := listen(t, "127.0.0.1:0")
		p := local(c).Port()
		other, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.2:%d", p))
		_ = c.Close()
		if err != nil {
			continue
		}
		_ = other.Close()
		if out = append(out, p); len(out) == 2 && out[0] != out[1] {
			return out[0], out[1]
		}
		out = out[:1]
	}
	t.Fatal("no free ports")
	return 0, 0
}

// coturn runs turnserver on two loopback addresses until the test ends.
func coturn(t *testing.T) netip.AddrPort {
	t.Helper()
	path, dir := tool(t, "turnserver"), t.TempDir()
	port, alt := freePorts(t)
	conf := fmt.Sprintf("listening-ip=127.0.0.1\nlistening-ip=127.0.0.2\nlistening-port=%d\nalt-listening-port=%d\n"+
		"stun-only\nno-tls\nno-dtls\nno-tcp\nno-cli\npidfile=%s/pid\nuserdb=%s/db\nlog-file=stdout\nsimple-log\n", port, alt, dir, dir)
	// Newer versions want to be asked for RFC 5780, older ones do not know the option.
	if help, _ := exec.Command(path, "--help").CombinedOutput(); bytes.Contains(help, []byte(" --rfc5780")) {
		conf += "rfc5780\n"
	}
	file := filepath.Join(dir, "turnserver.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), path, "-c", file)
	cmd.Stdout, cmd.Stderr, cmd.Dir = &out, &out, dir
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Wait() // ended by the signal
		if t.Failed() {
			t.Logf("turnserver:\n%s", &out)
		}
	})
	server := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, _, err := Ask(ctx, listen(t, "127.0.0.1:0"), server); err != nil {
		t.Fatalf("turnserver does not come up: %v", err)
	}
	return server
}

func TestCoturnServer(t *testing.T) {
	server := coturn(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	t.Run("Ask", func(t *testing.T) {
		c := listen(t, "127.0.0.1:0")
		mapped, rtt, err := Ask(ctx, c, server)
		if err != nil || mapped != local(c) || rtt <= 0 {
			t.Errorf("%v, %v, %v, want %v", mapped, rtt, err, local(c))
		}
	})
	t.Run("no NAT", func(t *testing.T) {
		c, other := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
		r, err := Discover(ctx, Config{Servers: []netip.AddrPort{server}, Local: []netip.AddrPort{local(c)}}, c, other)
		if err != nil || r.Mapping != MappingNone || r.Filtering != FilteringEndpointIndependent || r.Blocked {
			t.Errorf("%v, %v", &r.Family, err)
		}
	})
	// A host that does not know its own address looks like one behind a NAT that
	// changes nothing: so every test runs, RESPONSE-PORT for the lifetime too.
	t.Run("as if behind a NAT", func(t *testing.T) {
		if testing.Short() {
			t.Skip("takes 10 s of real time")
		}
		c, other := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
		alt := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), server.Port())
		r, err := Discover(ctx, Config{Servers: []netip.AddrPort{server, alt}, MaxLifetime: time.Second}, c, other)
		if err != nil || r.Mapping != MappingEndpointIndependent || r.Filtering != FilteringEndpointIndependent ||
			r.Hairpin != Yes || r.Lifetime != time.Second || len(r.Public) != 1 || r.Public[0] != local(c) {
			t.Errorf("%v, public %v, %v", &r.Family, r.Public, err)
		}
	})
}

// serve answers on a loopback socket until the test ends.
func serve(t *testing.T, addr string) (netip.AddrPort, *Server) {
	t.Helper()
	c, s, done := listen(t, addr), new(Server), make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("serve: %v", err)
				}
				return
			}
			if out, ok := s.Answer(nil, buf[:n], from.(*net.UDPAddr).AddrPort(), time.Now()); ok {
				_, _ = c.WriteTo(out, from)
			}
		}
	}()
	t.Cleanup(func() { _ = c.Close(); <-done })
	return local(c), s
}

func TestCoturnClients(t *testing.T) {
	for _, tt := range []struct {
		name, tool string
		args       []string
	}{
		{"stunclient", "turnutils_stunclient", nil},
		{"natdiscovery", "turnutils_natdiscovery", []string{"-m"}},
		{"natdiscovery with padding", "turnutils_natdiscovery", []string{"-m", "-P"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := tool(t, tt.tool)
			server, s := serve(t, "127.0.0.1:0")
			from := listen(t, "127.0.0.1:0")
			port := local(from).Port()
			_ = from.Close() // for the client, which cannot choose one and say so
			args := append([]string{"-p", fmt.Sprint(server.Port()), "-L", "127.0.0.1"}, tt.args...)
			want := "reflexive addr: 127.0.0.1:"
			if tt.args != nil {
				args, want = append(args, "-l", fmt.Sprint(port)), fmt.Sprintf("%s%d\n", want, port)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			out, err := exec.CommandContext(ctx, path, append(args, "127.0.0.1")...).CombinedOutput()
			if !strings.Contains(string(out), want) {
				t.Errorf("%v, no %q in:\n%s", err, want, out)
			}
			if s.reasons[answered].Load() == 0 {
				t.Error("the server answered nothing")
			}
		})
	}
}
