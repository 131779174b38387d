//go:build linux

package proxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestDirectory has all fronts that need no cluster serve the nodes of two edges,
// and of the front's own domain.
func TestDirectory(t *testing.T) {
	w := newWorld(t)
	for _, node := range []string{"edge-a-1", "edge-b-1", "cloud-1"} {
		eventually(t, 30*time.Second, node, func() error { return w.passes(node) })
	}
	t.Run("TLS", w.testTLS)
	t.Run("HTTP", w.testHTTP)
	t.Run("CONNECT", w.testConnect)
	t.Run("streams", w.testStreams)
	t.Run("off", w.testOff)
}

// passes connects to a node by TLS through the front, and verifies that it is that.
func (w *world) passes(node string) error {
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	raw, err := w.other.DialTCP(ctx, w.at(10281))
	if err != nil {
		return err
	}
	defer raw.Close()
	c := tls.Client(raw, &tls.Config{ServerName: node, RootCAs: w.ca.pool})
	if err := c.HandshakeContext(ctx); err != nil {
		return err
	}
	return says(c, node, node+":10250")
}

// says asks a node who it is.
func says(c net.Conn, node, host string) error {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(c, "GET /metrics HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if want := node + " " + host + "/metrics"; err != nil || string(body) != want {
		return fmt.Errorf("%s %q, %w, want %q", res.Status, body, err, want)
	}
	return nil
}

func (w *world) testTLS(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"edge-a-2", "unrecognized name"},
		{"localhost", "unrecognized name"},
		{"x-raven-proxy-internal-svc.kube-system.svc", "unrecognized name"}, // no TLS ends here without a cluster
		{"edge-a-gw", "internal error"},                                     // nothing listens on that node
	} {
		c := tls.Client(w.dial(w.other, w.at(10281)), &tls.Config{ServerName: tt.name, RootCAs: w.ca.pool})
		if err := c.Handshake(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
}

// testHTTP shows that plain HTTP is there on the front itself only.
func (w *world) testHTTP(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if c, err := w.other.DialTCP(ctx, w.at(10282)); err == nil {
		_ = c.Close()
		t.Error("plain HTTP can be reached from elsewhere, and nobody is asked who they are")
	}
	local := netip.MustParseAddrPort("127.0.0.1:10282")
	for _, node := range []string{"edge-a-1", "edge-b-1", "cloud-1"} {
		if err := says(w.dial(w.front, local), node, node+":9100"); err != nil {
			t.Errorf("%s: %v", node, err)
		}
	}
	for host, want := range map[string]string{"edge-a-1:22": "403", "nope:9100": "404", "192.168.1.11:9100": "404", "127.0.0.1:9100": "404"} {
		c := w.dial(w.front, local)
		_, _ = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host)
		if got, _ := io.ReadAll(c); !strings.HasPrefix(string(got), "HTTP/1.1 "+want) {
			t.Errorf("%s: %q", host, got)
		}
	}
}

func (w *world) testConnect(t *testing.T) {
	mutual := func(cn string) net.Conn {
		return tls.Client(w.dial(w.other, w.at(10295)), &tls.Config{
			RootCAs: w.ca.pool, ServerName: w.front.IP.String(), Certificates: []tls.Certificate{w.ca.issue(t, cn)},
		})
	}
	unix := func() net.Conn {
		c, err := net.Dial("unix", w.socket())
		must(t, err)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	for _, tt := range []struct {
		name, node string
		conn       net.Conn
	}{
		{"mTLS", "edge-a-1", mutual("kube-apiserver")},
		{"mTLS", "edge-b-1", mutual("kube-apiserver")},
		{"socket", "edge-a-1", unix()},
		{"socket", "edge-b-1", unix()},
		{"socket", "cloud-1", unix()},
	} {
		if err := w.connects(tt.conn, tt.node); err != nil {
			t.Errorf("%s %s: %v", tt.name, tt.node, err)
		}
	}
	if err := w.connects(mutual("somebody"), "edge-a-1"); err == nil {
		t.Error("any certificate of the authority may connect")
	}
}

// connects has a CONNECT to a node's kubelet, and TLS inside.
func (w *world) connects(c net.Conn, node string) error {
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := fmt.Fprintf(c, "CONNECT %s:10250 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", node); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return says(tls.Client(c, &tls.Config{ServerName: node, RootCAs: w.ca.pool}), node, node+":10250")
}

// testStreams looks at an open stream from outside.
func (w *world) testStreams(t *testing.T) {
	c := tls.Client(w.dial(w.other, w.at(10281)), &tls.Config{ServerName: "edge-b-1", RootCAs: w.ca.pool})
	must(t, c.Handshake())
	eventually(t, 10*time.Second, "corax proxy", func() error {
		out, err := w.Agent(w.front.Name).Command(t.Context(), "proxy")
		if !strings.Contains(string(out), "edge-b-1:10250") || !strings.Contains(string(out), w.other.IP.String()) || !strings.Contains(string(out), "fd63:6f72:6178:") {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// testOff has the cloud leave proxy mode: the front closes, without a restart.
func (w *world) testOff(t *testing.T) {
	d := w.Domains[0]
	g := w.Object(d, w.keys) // without proxyConfig
	must(t, g.Write(w.Gateways))
	eventually(t, 20*time.Second, "closed front", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		c, err := w.other.DialTCP(ctx, w.at(10281))
		if err == nil {
			_ = c.Close()
			return errors.New("it listens")
		}
		return nil
	})
}
