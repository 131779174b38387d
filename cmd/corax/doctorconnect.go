package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// connectVia is how an API server's egress selector is told to come.
type connectVia struct {
	URL           string // unix:/PATH or https://HOST:PORT; empty: it is not
	Cert, Key, CA string // PEM files; without CA: the authorities of this host

	network, address, host string
}

// parse reads the URL, and checks what belongs together.
func (v *connectVia) parse() error {
	switch {
	case v.URL == "" && (v.Cert != "" || v.Key != "" || v.CA != ""):
		return errors.New("--connect-cert, --connect-key and --connect-ca go with --connect")
	case v.URL == "":
		return nil
	case (v.Cert == "") != (v.Key == ""):
		return errors.New("--connect-cert and --connect-key are given together or not at all")
	}
	u, err := url.Parse(v.URL)
	if err != nil {
		return fmt.Errorf("--connect: %w", err)
	}
	path := cmp.Or(u.Path, u.Opaque)
	switch {
	case u.Scheme == "unix" && u.Host == "" && filepath.IsAbs(path):
		v.network, v.address = "unix", path
		return nil
	case u.Scheme == "https" && u.Hostname() != "" && strings.Trim(u.Path, "/") == "":
		v.network, v.host = "tcp", u.Hostname()
		v.address = net.JoinHostPort(v.host, cmp.Or(u.Port(), strconv.Itoa(portConnect)))
		return nil
	}
	return fmt.Errorf("--connect: %q is neither unix:/PATH nor https://HOST:PORT", v.URL)
}

// portConnect is where fronts serve CONNECT over TCP, unless told otherwise.
const portConnect = 10295

// connected is what came of a CONNECT: how far it went.
type connected struct {
	dial    error  // why there is no connection; then nothing else is known
	tls     error  // why there is none with the front, or why it does not want our certificate
	subject string // of the front's certificate; empty: a unix socket
	answer  error  // why there is no HTTP answer
	status  int
	text    string // what a refusal says
	node    knocked
}

// connectThrough does what an API server does: CONNECT, then TLS with the node, whose
// certificate is looked at only.
func connectThrough(ctx context.Context, v connectVia, target, name string) (k connected) {
	d := net.Dialer{Timeout: stepTimeout}
	var c net.Conn
	if c, k.dial = d.DialContext(ctx, v.network, v.address); k.dial != nil {
		return k
	}
	defer func() { _ = c.Close() }()
	// As knock: a front gives a path that has to be looked for 20 s.
	_ = c.SetDeadline(time.Now().Add(3 * stepTimeout))
	if v.network == "tcp" {
		var cfg *tls.Config
		if cfg, k.tls = v.tls(); k.tls != nil {
			return k
		}
		t := tls.Client(c, cfg)
		if k.tls = t.HandshakeContext(ctx); k.tls != nil {
			return k
		}
		k.subject = t.ConnectionState().PeerCertificates[0].Subject.CommonName
		c = t
	}
	r, err := askConnect(c, target, &k)
	// In TLS 1.3 the front looks at our certificate after our handshake is over.
	if remote, ok := errors.AsType[*net.OpError](err); ok && remote.Op == "remote error" {
		k.tls = err
		return k
	}
	if k.answer = err; err == nil && k.status == http.StatusOK {
		k.node = greet(ctx, &aheadConn{c, r}, name)
	}
	return k
}

// tls is how the front is met.
func (v *connectVia) tls() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: v.host}
	if v.CA != "" {
		pem, err := os.ReadFile(v.CA)
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate", v.CA)
		}
	}
	if v.Cert != "" {
		pair, err := tls.LoadX509KeyPair(v.Cert, v.Key)
		if err != nil {
			return nil, err
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// askConnect sends the request and reads the answer into k.
func askConnect(c net.Conn, target string, k *connected) (*bufio.Reader, error) {
	if _, err := io.WriteString(c, "CONNECT "+target+" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"); err != nil {
		return nil, err
	}
	r := bufio.NewReader(io.LimitReader(c, maxHeard))
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return nil, err
	}
	if k.status = resp.StatusCode; k.status != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		k.text = cmp.Or(strings.TrimSpace(string(text)), resp.Status)
	}
	_ = resp.Body.Close()
	return r, nil
}

// maxHeard bounds what is read of a front, in bytes: nodes say much in /metrics.
const maxHeard = 1 << 20

// aheadConn gives what was read ahead first.
type aheadConn struct {
	net.Conn
	ahead io.Reader
}

// Read reads.
func (a *aheadConn) Read(b []byte) (int, error) { return a.ahead.Read(b) }

// examineConnect asks as an egress selector does, step by step.
func (d *doctor) examineConnect(ctx context.Context, r *DoctorReport, name string) {
	v := d.question.Connect
	target := net.JoinHostPort(name, strconv.Itoa(int(d.question.Port)))
	k := d.connect(ctx, v, target, name)
	if k.dial != nil {
		fix := "a front must run behind that address, with --proxy-connect-cert, -key and -client-ca (chart: proxy.connect.existingSecret); a name must be known to this host, and a Service's address needs kube-proxy here"
		if v.network == "unix" {
			fix = "a front must run on this node, with --proxy-connect-socket (chart: proxy.connect.socket), and only its owner and root may open the socket; a pod needs the folder mounted, not the file"
		}
		r.add("socket", checkFail, "nobody takes a connection at "+v.address, k.dial.Error(), fix)
		return
	}
	r.add("socket", checkOK, v.address+" takes connections", "", "")
	if k.tls != nil {
		cause, fix := tlsMeans(k.tls)
		r.add("tls", checkFail, "no TLS with the front at "+v.address, cause, fix)
		return
	}
	if v.network == "tcp" {
		r.add("tls", checkOK, "TLS with "+cmp.Or(k.subject, v.host)+", both certificates are good", "", "")
	}
	switch {
	case k.answer != nil:
		r.add("connect", checkFail, "no answer to CONNECT "+target, k.answer.Error(), "see whether it is a front that listens at "+v.address+": corax status there")
		return
	case k.status != http.StatusOK:
		r.add("connect", checkFail, fmt.Sprintf("CONNECT %s was refused with %d", target, k.status), k.text, refusalMeans(k.status))
		return
	}
	r.add("connect", checkOK, "CONNECT "+target+" was taken", "", "")
	r.addNode("kubelet", name, target, k.node)
}

// tlsMeans says why there is no TLS with a front.
func tlsMeans(err error) (cause, fix string) {
	host, badHost := errors.AsType[x509.HostnameError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	remote, refused := errors.AsType[*net.OpError](err)
	switch {
	case badHost:
		return "the front's certificate does not have " + host.Host, "issue --proxy-connect-cert for all names and addresses that stand in URLs: those of the Service x-raven-proxy-connect, its ClusterIP, and hosts"
	case unknown:
		return err.Error(), "--connect-ca (caBundle of the API server) must have the authority of --proxy-connect-cert"
	case refused && remote.Op == "remote error":
		return "the front does not want this client: " + err.Error(), "--connect-cert (clientCert of the API server) must be of an authority in --proxy-connect-client-ca, and its name one of --proxy-connect-client; the front's log says which"
	}
	return err.Error(), "see whether the files are right, and it is CONNECT that is served there, not another front: corax status on that node"
}

// refusalMeans says what mends a refusal of CONNECT or HTTP. See the front's
// documented errors.
func refusalMeans(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "this version asks as no front understands: compare corax version here and there"
	case http.StatusForbidden:
		return "list the port in proxyHTTPPort or proxyHTTPSPort of the node's Gateway"
	case http.StatusNotFound:
		return "see whether the node is in a Gateway that takes part in proxy mode; addresses of Services and Pods need --proxy-connect-cluster (chart: proxy.connect.cluster)"
	case http.StatusBadGateway:
		return "see whether the kubelet, or what listens there, runs, and whose certificate it shows"
	case http.StatusGatewayTimeout:
		return "run corax doctor --node NAME on a front: it tells path, edge and node apart"
	default:
		return "corax status and corax proxy on the front say what is in the way"
	}
}

// isIP reports whether a host is an address, for which no TLS name is sent.
func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}
