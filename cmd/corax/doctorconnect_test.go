package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"corax/proxy"
	"corax/proxy/front"
)

// onlyDialer dials one node.
type onlyDialer struct{ address string }

func (d onlyDialer) Dial(ctx context.Context, t proxy.Target) (net.Conn, error) {
	if t.Node != "edge-1" || d.address == "" {
		return nil, proxy.Refuse(proxy.CodeDial, "node: nobody listens there")
	}
	var n net.Dialer
	return n.DialContext(ctx, "tcp", d.address)
}

// oneToken is an API server that knows one token, and lets it do everything.
type oneToken string

func (o oneToken) Token(_ context.Context, token string) (front.User, error) {
	if token != string(o) {
		return front.User{}, front.ErrUnauthenticated
	}
	return front.User{Name: "scraper"}, nil
}

func (o oneToken) Allowed(context.Context, front.User, front.Access) (bool, error) { return true, nil }

// pemPair writes a self-signed pair, and returns its files.
func pemPair(t *testing.T, name string) (cert, key string) {
	t.Helper()
	c, k := testPair(t, name)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	if err := errors.Join(os.WriteFile(cert, c, 0o600), os.WriteFile(key, k, 0o600)); err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// runFront runs a front with two nodes behind it, of which one answers, and returns
// where it takes HTTP and CONNECT.
func runFront(t *testing.T, cfg front.Config, socket string) (plain, connect string) {
	t.Helper()
	cfg.Live, cfg.Counters = proxy.NewLive(proxy.Limits{}), new(proxy.Counters)
	f, err := front.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	any4 := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	f.Apply(front.Plan{
		HTTP: any4, Connect: any4, ConnectSocket: socket,
		Nodes: []front.Node{{Name: "edge-1", Ports: []uint16{10250, 9100}, PlainPorts: []uint16{9100}}, {Name: "edge-2", Ports: []uint16{10250}}},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.After(10 * time.Second); len(f.Listeners()) < 3; {
		select {
		case <-end:
			t.Fatal("the front does not listen")
		case <-tick.C:
		}
	}
	l := f.Listeners()
	return l[0].Addr, l[1].Addr
}

// TestConnectThrough asks a real front as an API server does, and finds how far it
// gets.
func TestConnectThrough(t *testing.T) {
	serverCert, serverKey := pemPair(t, "connect.example")
	clientCert, clientKey := pemPair(t, "kube-apiserver")
	otherCert, otherKey := pemPair(t, "somebody")
	nodeCert, nodeKey := pemPair(t, "edge-1")
	node, err := tls.LoadX509KeyPair(nodeCert, nodeKey)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{node}})
	if err != nil {
		t.Fatal(err)
	}
	kubelet := httptest.NewUnstartedServer(http.NotFoundHandler())
	kubelet.Listener = l
	kubelet.Start()
	t.Cleanup(kubelet.Close)
	socket := filepath.Join(t.TempDir(), "c.sock")
	pair, cas := newPair(serverCert, serverKey), newPool(clientCert)
	plain, connect := runFront(t, front.Config{
		Dialer:  onlyDialer{l.Addr().String()},
		Connect: front.ConnectTLS{Certificate: pair.get, ClientCAs: cas.value, Names: []string{"kube-apiserver"}},
	}, socket)
	_, port, _ := net.SplitHostPort(connect)

	for _, tt := range []struct {
		name   string
		via    connectVia
		target string
		want   func(connected) bool
	}{
		{"socket", connectVia{URL: "unix:" + socket}, "edge-1:10250", func(k connected) bool { return k.status == 200 && k.node.subject == "edge-1" }},
		{"a socket that is not there", connectVia{URL: "unix:" + socket + "x"}, "edge-1:10250", func(k connected) bool { return k.dial != nil }},
		{"a node that nobody knows", connectVia{URL: "unix:" + socket}, "edge-9:10250", func(k connected) bool {
			return k.status == 404 && strings.HasPrefix(k.text, "corax: request: ")
		}},
		{"a node that is down", connectVia{URL: "unix:" + socket}, "edge-2:10250", func(k connected) bool { return k.status == 502 }},
		{"a port", connectVia{URL: "unix:" + socket}, "edge-1:22", func(k connected) bool { return k.status == 403 }},
		{"another name", connectVia{URL: "https://127.0.0.1:" + port, CA: serverCert, Cert: clientCert, Key: clientKey}, "edge-1:10250", func(k connected) bool {
			_, ok := errors.AsType[x509.HostnameError](k.tls)
			return ok
		}},
		{"a good client", connectVia{URL: "https://connect.example:" + port, CA: serverCert, Cert: clientCert, Key: clientKey}, "edge-1:10250", func(k connected) bool {
			return k.status == 200 && k.subject == "connect.example" && k.node.subject == "edge-1" && k.node.err == nil
		}},
		{"an unknown client", connectVia{URL: "https://connect.example:" + port, CA: serverCert, Cert: otherCert, Key: otherKey}, "edge-1:10250", func(k connected) bool {
			_, fix := tlsMeans(k.tls)
			return k.status == 0 && k.answer == nil && strings.Contains(fix, "--proxy-connect-client")
		}},
		{"no client", connectVia{URL: "https://connect.example:" + port, CA: serverCert}, "edge-1:10250", func(k connected) bool {
			_, fix := tlsMeans(k.tls)
			return strings.Contains(fix, "--proxy-connect-client")
		}},
		{"another authority", connectVia{URL: "https://connect.example:" + port, CA: otherCert, Cert: clientCert, Key: clientKey}, "edge-1:10250", func(k connected) bool {
			_, fix := tlsMeans(k.tls)
			return strings.Contains(fix, "--connect-ca")
		}},
		{"a file that is not there", connectVia{URL: "https://connect.example:" + port, CA: serverCert + "x"}, "edge-1:10250", func(k connected) bool {
			return errors.Is(k.tls, os.ErrNotExist)
		}},
		{"the plain port", connectVia{URL: "https://" + plain, CA: serverCert}, "edge-1:10250", func(k connected) bool { return k.tls != nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.via.parse(); err != nil {
				t.Fatal(err)
			}
			if tt.via.host == "connect.example" { // no resolver knows it
				tt.via.address = connect
			}
			if k := connectThrough(t.Context(), tt.via, tt.target, "edge-1"); !tt.want(k) {
				t.Errorf("%+v", k)
			}
		})
	}
}

// TestScrape asks a real front's plain port.
func TestScrape(t *testing.T) {
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" || r.Header.Get("Authorization") != "" {
			t.Errorf("the node sees %s, %v", r.URL, r.Header)
		}
		_, _ = w.Write([]byte("# HELP up\nup 1\n"))
	}))
	t.Cleanup(node.Close)
	plain, _ := runFront(t, front.Config{Dialer: onlyDialer{node.Listener.Addr().String()}, Auth: oneToken("good")},
		filepath.Join(t.TempDir(), "c.sock"))
	for _, tt := range []struct {
		token, host string
		status      int
		front       bool
	}{
		{"", "edge-1:9100", 401, true},
		{"bad", "edge-1:9100", 401, true},
		{"good", "edge-1:9100", 200, false},
		{"good", "edge-9:9100", 404, true},
		{"good", "edge-1:22", 403, true},
	} {
		if f := scrape(t.Context(), plain, tt.host, tt.token); f.err != nil || f.status != tt.status || f.fromFront() != tt.front {
			t.Errorf("%q of %s: %+v", tt.token, tt.host, f)
		}
	}
	if f := scrape(t.Context(), "127.0.0.1:1", "x", ""); f.err == nil {
		t.Error("nobody answers")
	}
}

func TestParseConnect(t *testing.T) {
	for _, tt := range []struct {
		via              connectVia
		network, address string // empty: refused
	}{
		{connectVia{}, "", ""},
		{connectVia{URL: "unix:/run/c.sock"}, "unix", "/run/c.sock"},
		{connectVia{URL: "unix:///run/c.sock"}, "unix", "/run/c.sock"},
		{connectVia{URL: "https://10.0.0.1:10295"}, "tcp", "10.0.0.1:10295"},
		{connectVia{URL: "https://front/"}, "tcp", "front:10295"},
		{connectVia{URL: "https://[fd00::1]:443"}, "tcp", "[fd00::1]:443"},
		{connectVia{URL: "http://front:10295"}, "", ""},
		{connectVia{URL: "unix:run/c.sock"}, "", ""},
		{connectVia{URL: "unix://host/c.sock"}, "", ""},
		{connectVia{URL: "https://front:1/x"}, "", ""},
		{connectVia{URL: "https://:1"}, "", ""},
		{connectVia{URL: "front:10295"}, "", ""},
		{connectVia{URL: "https://front", Cert: "c"}, "", ""},
		{connectVia{CA: "c"}, "", ""},
	} {
		err := tt.via.parse()
		if tt.network != tt.via.network || tt.address != tt.via.address || (err != nil) != (tt.network == "" && tt.via != connectVia{}) {
			t.Errorf("%+v: %v", tt.via, err)
		}
	}
	token := filepath.Join(t.TempDir(), "token")
	for text, ok := range map[string]bool{"abc\n": true, "": false, "a\nb": false} {
		if err := os.WriteFile(token, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		q := doctorQuestion{Node: "n"}
		if err := q.complete(token); (err == nil) != ok || ok && q.Token != "abc" {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := (&doctorQuestion{HTTP: "h:1"}).complete(""); err == nil {
		t.Error("--http without --node")
	}
	if err := (&doctorQuestion{Node: "n", HTTP: "h"}).complete(""); err == nil {
		t.Error("--http without a port")
	}
}

func FuzzParseConnect(f *testing.F) {
	f.Add("unix:/run/c.sock")
	f.Add("https://[fd00::1]:443")
	f.Fuzz(func(t *testing.T, text string) {
		v := connectVia{URL: text}
		if v.parse() == nil && text != "" && (v.network == "" || v.address == "") {
			t.Errorf("%q: %+v", text, v)
		}
	})
}
