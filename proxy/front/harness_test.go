package front

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"corax/proxy"
)

// nodes is a dialer whose nodes listen on loopback.
type nodes struct {
	mu   sync.Mutex
	at   map[proxy.Target]string
	err  error
	hold chan struct{} // not nil: dials wait for it
}

func (n *nodes) Dial(ctx context.Context, t proxy.Target) (net.Conn, error) {
	n.mu.Lock()
	addr, err, hold := n.at[t], n.err, n.hold
	n.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, &proxy.Refusal{Code: proxy.CodeNoPath, Text: "path: gave up", Err: ctx.Err()}
		}
	}
	if err != nil {
		return nil, err
	}
	if addr == "" {
		return nil, proxy.Refuse(proxy.CodeDial, "node: nobody listens there")
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, &proxy.Refusal{Code: proxy.CodeDial, Text: "node: " + err.Error(), Err: err}
	}
	return c, nil
}

func (n *nodes) set(t proxy.Target, addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at[t] = addr
}

// syncBuffer takes log lines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// world is a running front, with two nodes.
type world struct {
	*Front
	t     *testing.T
	nodes *nodes
	cfg   Config
	log   *syncBuffer
	stop  func()
}

func plan() Plan {
	local := netip.MustParseAddrPort("127.0.0.1:0")
	ports := []uint16{10250, 10255, 9100, 9443}
	return Plan{
		TLS:  []TLSListener{{local, 10250}},
		HTTP: []netip.AddrPort{local},
		Nodes: []Node{
			node("Edge1", "10.0.0.5", ports),
			node("edge2", "10.0.0.5", ports),
			node("edge3.example.org", "10.0.0.7", ports),
		},
	}
}

func node(name, ip string, ports []uint16) Node {
	return Node{Name: name, IP: netip.MustParseAddr(ip), Ports: ports, TLSPorts: []uint16{9443}, PlainPorts: []uint16{9100}}
}

// run starts a front, which ends with the test at the latest.
func run(t *testing.T, p Plan, change func(*Config)) *world {
	t.Helper()
	w := &world{t: t, nodes: &nodes{at: map[proxy.Target]string{}}, log: new(syncBuffer)}
	w.cfg = Config{
		Log:    slog.New(slog.NewTextHandler(w.log, nil)),
		Dialer: w.nodes, Live: proxy.NewLive(proxy.Limits{}), Counters: new(proxy.Counters),
		Names: func(h string) (string, bool) {
			n, ok := map[string]string{"host1": "Edge1", "10.9.9.9": "edge2", "gone": "no-such-node"}[h]
			return n, ok
		},
	}
	if change != nil {
		change(&w.cfg)
	}
	f, err := New(w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.Front = f
	f.Apply(p)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run goes on after its context ended")
		}
	})
	t.Cleanup(w.stop)
	eventually(t, "listeners", func() bool { return len(f.Listeners()) == len(p.wants(true)) })
	return w
}

// eventually waits for what other goroutines do.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no %s", what)
		}
	}
}

// addr returns where a kind of front listens.
func (w *world) addr(kind string) string {
	w.t.Helper()
	for _, l := range w.Listeners() {
		if l.Front == kind {
			if l.Err != nil {
				w.t.Fatal(l.Err)
			}
			return l.Addr
		}
	}
	w.t.Fatalf("no %s front", kind)
	return ""
}

func (w *world) refusals(c proxy.Code) uint64 { return w.cfg.Counters.Snapshot().Refused[c] }

// wantRefused waits until a refusal is counted.
func (w *world) wantRefused(c proxy.Code, n uint64) {
	w.t.Helper()
	eventually(w.t, "refusal "+c.String(), func() bool { return w.refusals(c) >= n })
	if got := w.refusals(c); got != n {
		w.t.Errorf("%d refusals %s, want %d", got, c, n)
	}
}

// talk sends bytes and reads until the end.
func talk(t *testing.T, network, addr, say string) string {
	t.Helper()
	c := dial(t, network, addr)
	if _, err := io.WriteString(c, say); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil && len(got) == 0 {
		t.Fatalf("no answer to %.60q: %v", say, err)
	}
	return string(got)
}

func dial(t *testing.T, network, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

// listen runs serve for each connection to a new loopback port.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); serve(c) })
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().String()
}

// httpNode serves a handler at a port of a node, with TLS when cert is not nil.
func (w *world) httpNode(target proxy.Target, cert *tls.Certificate, h http.Handler) {
	w.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.nodes.set(target, ln.Addr().String())
	s := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	if cert != nil {
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: []string{"http/1.1"}})
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	w.t.Cleanup(func() { _ = s.Close(); <-done })
}

// authority is a CA for tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	a.key = newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// issue makes a certificate for servers and clients; names may be addresses.
func (a *authority) issue(cn string, names ...string) *tls.Certificate {
	a.t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: cn, Organization: []string{"team"}},
		KeyUsage: x509.KeyUsageDigitalSignature, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	key := newKey(a.t)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) cas() *x509.CertPool { return a.pool }

// tokens is an Auth with fixed users: the token is the name, "expired" is none,
// and "unknown" cannot be told.
type tokens struct {
	mu      sync.Mutex
	asked   []Access
	reviews int
	may     map[string]string // user: "verb subresource"
}

func (a *tokens) Token(_ context.Context, token string) (User, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reviews++
	switch token {
	case "expired":
		return User{}, ErrUnauthenticated
	case "unknown":
		return User{}, errors.New("connection refused")
	}
	return User{Name: token}, nil
}

func (a *tokens) Allowed(_ context.Context, u User, what Access) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, what)
	for s := range strings.SplitSeq(a.may[u.Name], ",") {
		if s == what.Verb+" "+what.Subresource {
			return true, nil
		}
	}
	return false, nil
}
