//go:build linux

package proxy_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"

	"corax/integration/lab"
)

// world is a cloud with a front and two edges that share their addresses. Every
// plain node has something like a kubelet and something like an exporter.
type world struct {
	*lab.Topology
	t     *testing.T
	ca    *authority
	front *lab.Node
	other *lab.Node // of the cloud: where the API server would be
	keys  map[string]string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{Topology: lab.Standard(lab.ForTest(t), lab.Options{NoCapture: true}), t: t, ca: newAuthority(t)}
	w.front, w.other = w.Node("cloud-gw"), w.Node("cloud-1")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var err error
	w.keys, err = w.Prepare(ctx)
	must(t, err)
	for _, d := range w.Domains {
		must(t, w.write(d))
	}
	cert, key := w.ca.file(t, "front", w.front.IP.String())
	w.Agent(w.front.Name).SetArgs("--proxy-connect-cert="+cert, "--proxy-connect-key="+key,
		"--proxy-connect-client-ca="+w.ca.path, "--proxy-connect-client=kube-apiserver", "--proxy-connect-socket="+w.socket())
	for _, name := range []string{"cloud-1", "edge-a-1", "edge-b-1"} {
		w.serve(w.Node(name))
	}
	for _, a := range w.Agents() {
		must(t, a.Start())
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, a := range w.Agents() {
		g.Go(func() error { return a.WaitReady(ctx) })
	}
	must(t, g.Wait())
	return w
}

func (w *world) socket() string { return filepath.Join(w.front.Dir(), "connect.sock") }

// write has a domain take part in proxy mode, and in no other.
func (w *world) write(d *lab.Domain) error {
	none := 0
	g := w.Object(d, w.keys)
	g.Replicas = &none
	text, err := g.YAML()
	if err != nil {
		return err
	}
	var o map[string]any
	if err := yaml.Unmarshal(text, &o); err != nil {
		return err
	}
	spec := o["spec"].(map[string]any)
	spec["proxyConfig"] = map[string]any{"Replicas": 1, "proxyHTTPPort": "9100"}
	for _, e := range spec["endpoints"].([]any) {
		e.(map[string]any)["type"] = "proxy"
	}
	if text, err = yaml.Marshal(o); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(w.Gateways, d.Name+".yaml"), text, 0o644)
}

// serve starts the services of a node. What they answer says who they are.
func (w *world) serve(n *lab.Node) {
	w.t.Helper()
	who := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(rw, n.Name+" "+r.Host+r.URL.String())
	})
	cert := w.ca.issue(w.t, "system:node:"+n.Name, n.Name, n.IP.String())
	for port, cfg := range map[uint16]*tls.Config{10250: {Certificates: []tls.Certificate{cert}}, 9100: nil} {
		tcp, err := n.ListenTCP(netip.AddrPortFrom(n.IP, port))
		must(w.t, err)
		var ln net.Listener = tcp
		if cfg != nil {
			ln = tls.NewListener(ln, cfg)
		}
		s := &http.Server{Handler: who, ReadHeaderTimeout: 10 * time.Second}
		go func() { _ = s.Serve(ln) }()
		w.t.Cleanup(func() { _ = s.Close() })
	}
}

// dial connects from a node to a port of the front.
func (w *world) dial(from *lab.Node, to netip.AddrPort) net.Conn {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	c, err := from.DialTCP(ctx, to)
	must(w.t, err)
	w.t.Cleanup(func() { _ = c.Close() })
	must(w.t, c.SetDeadline(time.Now().Add(30*time.Second)))
	return c
}

func (w *world) at(port uint16) netip.AddrPort { return netip.AddrPortFrom(w.front.IP, port) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// authority is a CA with files.
type authority struct {
	dir, path string
	cert      *x509.Certificate
	key       *ecdsa.PrivateKey
	pool      *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir(), pool: x509.NewCertPool()}
	a.path = filepath.Join(a.dir, "ca.pem")
	tmpl := template("ca")
	tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign
	var err error
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, a.key.Public(), a.key)
	must(t, err)
	a.cert, err = x509.ParseCertificate(der)
	must(t, err)
	a.pool.AddCert(a.cert)
	must(t, os.WriteFile(a.path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return a
}

func template(cn string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cn},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

// issue makes a certificate for names, which may be addresses.
func (a *authority) issue(t *testing.T, cn string, names ...string) tls.Certificate {
	t.Helper()
	tmpl := template(cn)
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// file is issue into files.
func (a *authority) file(t *testing.T, cn string, names ...string) (cert, key string) {
	t.Helper()
	c := a.issue(t, cn, names...)
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	must(t, err)
	cert, key = filepath.Join(a.dir, cn+".pem"), filepath.Join(a.dir, cn+".key")
	must(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}), 0o600))
	must(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	return cert, key
}

// eventually tries until there is no error.
func eventually(t *testing.T, limit time.Duration, what string, try func() error) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: %v", what, err)
		}
	}
}
