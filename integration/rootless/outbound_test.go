//go:build linux

package rootless_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"corax/integration/lab"
)

const (
	webPort  = 7600
	podName  = "web.shop.svc.cluster.local"
	socksAt  = "127.0.0.1:1080"
	httpAt   = "127.0.0.1:3128"
	mapTCP   = "127.0.0.1:7701"
	mapUDP   = "127.0.0.1:7702"
	evilName = "evil.shop.svc.cluster.local"
)

// TestOutbound reaches remote pods from programs of a rootless site that has no
// route to them.
func TestOutbound(t *testing.T) {
	far := netip.MustParseAddr("10.244.1.2") // the pod of the cloud's plain node
	dns := netip.MustParseAddr("10.244.0.2") // the pod of the hub
	w := newWorld(t, true,
		"--socks-addr", socksAt, "--http-proxy-addr", httpAt, "--cluster-dns", dns.String(),
		"--forward", fmt.Sprintf("tcp/%s=%s:%d", mapTCP, podName, podPort),
		"--forward", fmt.Sprintf("udp/%s=%s:%d", mapUDP, far, podPort))
	if w.far.IP != far || w.Domains[0].Nodes[0].Pods[0].IP != dns {
		t.Fatalf("the lab has other addresses: %s, %s", w.far.IP, w.Domains[0].Nodes[0].Pods[0].IP)
	}
	if err := w.Domains[0].Nodes[0].Pods[0].ServeDNS(dns, map[string][]netip.Addr{
		podName: {far}, evilName: {netip.MustParseAddr("127.0.0.1")},
	}); err != nil {
		t.Fatal(err)
	}
	page := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	w.web(t, page)
	host := w.gw.Host

	t.Run("no route", func(t *testing.T) {
		if c, err := host.DialTCP(within(t, 2*time.Second), netip.AddrPortFrom(far, webPort)); err == nil {
			_ = c.Close()
			t.Fatal("the host reaches the pod by itself: the test shows nothing")
		}
	})
	t.Run("curl", func(t *testing.T) {
		if _, err := exec.LookPath("curl"); err != nil {
			lacking(t, "no curl here")
		}
		for _, tt := range []struct{ proxy, name string }{
			{"--socks5-hostname", podName}, {"--socks5", far.String()}, {"--socks5-hostname", w.far.IP6.String()}, {"http", podName},
		} {
			args := []string{"-sS", "--max-time", "20", tt.proxy, socksAt}
			if tt.proxy == "http" {
				args = []string{"-sS", "--max-time", "20", "--proxytunnel", "--proxy", "http://" + httpAt}
			}
			url := "http://" + net.JoinHostPort(tt.name, fmt.Sprint(webPort)) + "/"
			out, err := host.Run(within(t, 30*time.Second), "curl", append(args, url)...)
			if err != nil || !bytes.Equal(out, page) {
				t.Errorf("%s %s: %d bytes, %v", tt.proxy, tt.name, len(out), err)
			}
		}
	})
	t.Run("SOCKS UDP", func(t *testing.T) { w.socksUDP(t, netip.AddrPortFrom(dns, 53), far) })
	t.Run("port maps", func(t *testing.T) {
		if _, err := host.Transfer(within(t, 60*time.Second), netip.MustParseAddrPort(mapTCP), 20<<20); err != nil {
			t.Error(err)
		}
		for _, size := range []int{10, 1200, 5000} {
			if _, err := host.EchoUDP(within(t, 10*time.Second), netip.MustParseAddrPort(mapUDP), size); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("source", func(t *testing.T) {
		// The bridge's address, which lies in the own subnet.
		got, err := host.WhoAmI(within(t, 10*time.Second), "tcp", netip.MustParseAddrPort(mapTCP))
		if want := w.Domains[1].Nodes[0].Subnets[0].Masked().Addr().Next(); err != nil || got != want {
			t.Errorf("the pod sees %v, %v; want %v", got, err, want)
		}
	})
	t.Run("corax forward", func(t *testing.T) { w.forwards(t, far) })
	t.Run("corax nc", func(t *testing.T) { w.nc(t, page) })
	t.Run("ssh", w.ssh)
	t.Run("forbidden", func(t *testing.T) { w.forbidden(t, evilName) })
}

// web serves a page on the far pod.
func (w *world) web(t *testing.T, page []byte) {
	t.Helper()
	for _, ip := range []netip.Addr{w.far.IP, w.far.IP6} {
		ln, err := w.far.ListenTCP(netip.AddrPortFrom(ip, webPort))
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(page) })}
		go func() { _ = s.Serve(ln) }()
		t.Cleanup(func() { _ = s.Close() })
	}
}

// socksUDP asks a name server through UDP ASSOCIATE.
func (w *world) socksUDP(t *testing.T, server netip.AddrPort, want netip.Addr) {
	c, err := w.gw.Host.DialTCP(within(t, 10*time.Second), netip.MustParseAddrPort(socksAt))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write([]byte{5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 12)
	if _, err := io.ReadFull(c, b); err != nil || b[3] != 0 {
		t.Fatalf("%x, %v", b, err)
	}
	relay := netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[6:10])), binary.BigEndian.Uint16(b[10:]))
	u, err := w.gw.Host.DialUDP(relay)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	_ = u.SetDeadline(time.Now().Add(20 * time.Second))
	q := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(podName + "."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	query, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	head := append([]byte{0, 0, 0, 1}, server.Addr().AsSlice()...)
	head = binary.BigEndian.AppendUint16(head, server.Port())
	if _, err := u.Write(append(head, query...)); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 1500)
	n, err := u.Read(answer)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(answer[:10], head) {
		t.Errorf("relayed from %x, want %x", answer[:10], head)
	}
	var m dnsmessage.Message
	if err := m.Unpack(answer[10:n]); err != nil || len(m.Answers) != 1 {
		t.Fatalf("%v, %v", m, err)
	}
	if a, ok := m.Answers[0].Body.(*dnsmessage.AResource); !ok || netip.AddrFrom4(a.A) != want {
		t.Errorf("answer %v", m.Answers[0])
	}
}

// command runs a client command on the rootless node, as the user of its agent.
func (w *world) command(ctx context.Context, stdin io.Reader, args ...string) (string, string, error) {
	corax, err := lab.Corax()
	if err != nil {
		return "", "", err
	}
	cmd := exec.CommandContext(ctx, corax, append(args, "--socket", w.gw.Socket())...)
	var out, problem bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &problem
	err = cmd.Run() // the socket is a file: any namespace does
	return out.String(), problem.String(), err
}

// forwards changes port maps at run time.
func (w *world) forwards(t *testing.T, far netip.Addr) {
	at := netip.MustParseAddrPort("127.0.0.1:7703")
	ctx := within(t, 60*time.Second)
	if _, text, err := w.command(ctx, nil, "forward", "add", fmt.Sprintf("tcp/7703=%s:%d", far, podPort)); err != nil {
		t.Fatal(text, err)
	}
	var err error
	for range 50 { // it listens soon
		if _, err = w.gw.Host.EchoTCP(ctx, at, 100); err == nil {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	if err != nil {
		t.Error(err)
	}
	if out, text, err := w.command(ctx, nil, "forward", "list"); err != nil || !strings.Contains(out, "tcp/"+at.String()) || !strings.Contains(out, mapUDP) {
		t.Error(out, text, err)
	}
	if _, text, err := w.command(ctx, nil, "forward", "add", fmt.Sprintf("tcp/7703=%s:%d", far, podPort)); err == nil || !strings.Contains(text, "there is such a map") {
		t.Error("added twice: ", text, err)
	}
	if _, text, err := w.command(ctx, nil, "forward", "remove", "tcp/7703"); err != nil {
		t.Error(text, err)
	}
	if c, err := w.gw.Host.DialTCP(ctx, at); err == nil {
		_ = c.Close()
		t.Error("it listens although it was removed")
	}
}

// nc gets a page over standard input and output.
func (w *world) nc(t *testing.T, page []byte) {
	question := "GET / HTTP/1.0\r\n\r\n"
	out, text, err := w.command(within(t, 30*time.Second), strings.NewReader(question), "nc", podName, fmt.Sprint(webPort))
	if err != nil || !strings.HasPrefix(out, "HTTP/1.0 200 OK\r\n") || !strings.HasSuffix(out, string(page)) {
		t.Errorf("%d bytes, %q, %v", len(out), text, err)
	}
	if _, text, err := w.command(within(t, 30*time.Second), nil, "nc", w.far.IP.String(), "9"); err == nil || !strings.Contains(text, "refused") {
		t.Errorf("a port without a listener: %q, %v", text, err)
	}
}

// forbidden tries what must not be reached: by address, and by a name.
func (w *world) forbidden(t *testing.T, names ...string) {
	node := w.Domains[1].Nodes[0]
	hosts := append([]string{
		"127.0.0.1", "::1", "169.254.169.254", "fd00:ec2::254", node.IP.String(), w.own.IP.String(), w.status().OverlayAddress,
	}, names...)
	for _, host := range hosts {
		c, err := w.gw.Host.DialTCP(within(t, 10*time.Second), netip.MustParseAddrPort(httpAt))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", net.JoinHostPort(host, "10284"))
		b, err := io.ReadAll(c)
		_ = c.Close()
		if errors.Is(err, os.ErrDeadlineExceeded) || strings.HasPrefix(string(b), "HTTP/1.1 200") {
			t.Errorf("%s: %q, %v", host, b, err)
		}
		if !strings.HasPrefix(string(b), "HTTP/1.1 403") {
			t.Errorf("%s: %q, want 403", host, b)
		}
	}
	if n := w.status().Counters["outbound_drop_total{forbidden}"]; n < uint64(len(hosts)) {
		t.Errorf("counted %d", n)
	}
}

// TestOutboundWithTUN: the same flags do the same where there is a TUN, so that a
// change of the datapath needs no other configuration.
func TestOutboundWithTUN(t *testing.T) {
	top := lab.Standard(lab.ForTest(t), lab.Options{Edges: 1, NoCapture: true})
	ctx := within(t, 60*time.Second)
	if _, err := top.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	far, gw := top.Domains[0].Nodes[1].Pods[0], top.Domains[1].Agents[0]
	if _, err := far.Serve(podPort); err != nil {
		t.Fatal(err)
	}
	gw.SetArgs("--datapath", "tun", "--socks-addr", socksAt, "--http-proxy-addr", httpAt,
		"--forward", fmt.Sprintf("tcp/%s=%s:%d", mapTCP, far.IP, podPort),
		"--forward", fmt.Sprintf("udp/%s=%s:%d", mapUDP, far.IP, podPort))
	for _, a := range top.Agents() {
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range top.Agents() {
		if err := a.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := gw.Host.Transfer(ctx, netip.MustParseAddrPort(mapTCP), 1<<20); err != nil {
		t.Error(err)
	}
	if _, err := gw.Host.EchoUDP(ctx, netip.MustParseAddrPort(mapUDP), 1000); err != nil {
		t.Error(err)
	}
	s, err := gw.Status(ctx)
	if err != nil || s.Datapath != "tun" {
		t.Errorf("%v, %v", s, err)
	}
	w := &world{Topology: top, t: t, gw: gw, far: far, own: top.Domains[1].Nodes[0].Pods[0]}
	w.forbidden(t)
}
