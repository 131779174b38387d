package front

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"corax/proxy"
)

// TestPassThrough shows that the caller's TLS ends at the node: it verifies the
// node's certificate, and the node sees the caller's.
func TestPassThrough(t *testing.T) {
	w := run(t, plan(), nil)
	ca := newAuthority(t)
	cert, client := ca.issue("system:node:Edge1", "edge1", "host1"), ca.issue("kube-apiserver")
	seen := make(chan string, 10)
	addr := listen(t, func(c net.Conn) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool})
		if err := s.Handshake(); err != nil {
			seen <- err.Error()
			return
		}
		seen <- s.ConnectionState().PeerCertificates[0].Subject.CommonName
		_, _ = io.Copy(s, s)
		_ = s.CloseWrite()
	})
	w.nodes.set(proxy.Target{Node: "Edge1", Port: 10250}, addr)
	for _, name := range []string{"edge1", "EDGE1", "host1"} {
		t.Run(name, func(t *testing.T) {
			raw := dial(t, "tcp", w.addr(kindTLS))
			c := tls.Client(raw, &tls.Config{ServerName: name, RootCAs: ca.pool, Certificates: []tls.Certificate{*client}})
			if _, err := io.WriteString(c, "hello"); err != nil {
				t.Fatal(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(c); string(got) != "hello" || err != nil {
				t.Errorf("echo %q, %v", got, err)
			}
			if got := <-seen; got != "kube-apiserver" {
				t.Errorf("the node sees %q", got)
			}
		})
	}
	eventually(t, "end of streams", func() bool { return w.cfg.Live.Len() == 0 })
	s := w.cfg.Counters.Snapshot()
	if s.Requests[kindTLS] != 3 || s.Up == 0 || s.Down == 0 || s.Stages[proxy.StageFirst].Count != 3 || s.Stages[proxy.StageRequest].Count != 3 {
		t.Errorf("counters %+v", s)
	}
	if log := w.log.String(); strings.Count(log, "component=audit front=tls node=Edge1 port=10250") != 3 ||
		!strings.Contains(log, "source=127.0.0.1:") || strings.Contains(log, "hello") {
		t.Errorf("audit lines:\n%s", log)
	}
}

func TestTLSRefusals(t *testing.T) {
	for _, c := range []struct {
		name, sni string
		err       error
		code      proxy.Code
		alert     tls.AlertError
	}{
		{"unknown name", "no-such-node", nil, proxy.CodeUnknownNode, alertUnrecognizedName},
		{"name of the Service while no TLS ends here", "svc", nil, proxy.CodeUnknownNode, alertUnrecognizedName},
		{"no name", "", nil, proxy.CodeUnknownNode, alertUnrecognizedName},
		{"alias of a node that takes no part", "gone", nil, proxy.CodeUnknownNode, alertUnrecognizedName},
		{"refused by the edge", "edge1", proxy.Refuse(proxy.CodeCaller, "no"), proxy.CodeCaller, alertAccessDenied},
		{"port", "edge1", proxy.Refuse(proxy.CodePort, "no"), proxy.CodePort, alertAccessDenied},
		{"no path", "edge1", proxy.Refuse(proxy.CodeNoPath, "no"), proxy.CodeNoPath, alertInternalError},
		{"node does not answer", "edge1", proxy.Refuse(proxy.CodeDial, "no"), proxy.CodeDial, alertInternalError},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := run(t, plan(), func(cfg *Config) { cfg.ServiceNames = []string{"svc"} })
			w.nodes.err = c.err
			err := tls.Client(dial(t, "tcp", w.addr(kindTLS)), &tls.Config{ServerName: c.sni, InsecureSkipVerify: true}).Handshake()
			// crypto/tls has a type of its own for alerts that it gets.
			if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "remote error" || op.Err.Error() != c.alert.Error() {
				t.Errorf("handshake: %v, want %v", err, c.alert)
			}
			w.wantRefused(c.code, 1)
			if w.cfg.Live.Len() != 0 {
				t.Error("a stream is left")
			}
			if log := w.log.String(); !strings.Contains(log, "msg=refused component=audit front=tls") || !strings.Contains(log, "reason="+c.code.String()) {
				t.Errorf("audit lines:\n%s", log)
			}
		})
	}
}

func TestPlainBytesOnTLSPort(t *testing.T) {
	for _, say := range []string{"GET / HTTP/1.1\r\nHost: edge1\r\n\r\n", "SSH-2.0-x\r\n", "\x16\x02junk"} {
		t.Run(say[:3], func(t *testing.T) {
			w := run(t, plan(), nil)
			got := talk(t, "tcp", w.addr(kindTLS), say)
			if !strings.HasPrefix(got, "HTTP/1.0 400 Bad Request\r\n") || !strings.HasSuffix(got, "corax: request: this port speaks TLS\n") {
				t.Errorf("answer %q", got)
			}
			w.wantRefused(proxy.CodeMalformed, 1)
		})
	}
}

// TestTerminate shows who comes to where TLS ends, and what becomes of tokens.
func TestTerminate(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	const service = "svc.kube-system.svc"
	auth := &tokens{may: map[string]string{"prometheus": "get metrics", "admin": "get proxy,get metrics,create proxy", "robot": "get metrics"}}
	w := run(t, plan(), func(c *Config) {
		c.Auth = auth
		c.Certificate = func() (*tls.Certificate, error) { return ca.issue("front", service), nil }
		c.ServiceNames = []string{service, "edge2"} // a name of ours wins
		c.ClientCAs, c.NodeCAs = ca.cas, ca.cas
		c.Hostname = func(n string) string { return map[string]string{"Edge1": "host1"}[n] }
	})
	show := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(rw, r.Host+" "+r.URL.String()+" token="+r.Header.Get("Authorization"))
	})
	w.httpNode(proxy.Target{Node: "Edge1", Port: 10250}, ca.issue("system:node:Edge1", "host1"), show)
	w.httpNode(proxy.Target{Node: "edge2", Port: 10250}, ca.issue("system:node:Edge1", "edge2", "10.0.0.5"), show) // another node
	w.httpNode(proxy.Target{Node: "edge3.example.org", Port: 10250}, other.issue("system:node:edge3.example.org", "edge3.example.org"), show)
	w.httpNode(proxy.Target{Node: "Edge1", Port: 9100}, nil, show)
	w.httpNode(proxy.Target{Node: "edge2", Port: 9443}, ca.issue("", "elsewhere"), show)
	for _, c := range []struct {
		name, url, token string
		cert             *tls.Certificate
		status           int
		body             string
	}{
		{"metrics", "/metrics?nodeName=edge1", "prometheus", nil, 200, "Edge1:10250 /metrics token=Bearer prometheus"},
		{"other parameters stay", "/metrics?a=%2f&nodeName=host1&b", "prometheus", nil, 200, "Edge1:10250 /metrics?a=%2f&b token=Bearer prometheus"},
		{"pods", "/pods?nodeName=edge1", "prometheus", nil, 403, "may not get nodes/proxy"},
		{"pods as admin", "/pods?nodeName=edge1", "admin", nil, 200, "Edge1:10250 /pods token=Bearer admin"},
		{"metrics in disguise", "/metrics/../pods?nodeName=edge1", "prometheus", nil, 403, "nodes/proxy"},
		{"metrics in disguise, escaped", "/metrics/%2e%2e/pods?nodeName=edge1", "prometheus", nil, 403, "nodes/proxy"},
		{"no token", "/metrics?nodeName=edge1", "", nil, 401, "no bearer token"},
		{"expired token", "/metrics?nodeName=edge1", "expired", nil, 401, "has expired"},
		{"API server away", "/metrics?nodeName=edge1", "unknown", nil, 503, "does not say"},
		{"certificate", "/metrics?nodeName=edge1", "", ca.issue("robot"), 200, "Edge1:10250 /metrics token="},
		{"certificate without rights", "/metrics?nodeName=edge1", "", ca.issue("nobody"), 403, "may not"},
		{"token before certificate", "/pods?nodeName=edge1", "prometheus", ca.issue("admin"), 403, "prometheus"},
		{"plain port gets no token", "/metrics?nodeName=edge1&port=9100", "prometheus", nil, 200, "Edge1:9100 /metrics?port=9100 token="},
		{"certificate of another node", "/metrics?nodeName=edge2", "prometheus", nil, 502, "is that of node"},
		{"certificate of another CA", "/metrics?nodeName=edge3.example.org", "prometheus", nil, 502, "unknown authority"},
		{"certificate of another name", "/metrics?nodeName=edge2&port=9443", "prometheus", nil, 502, "is for none of"},
		{"unknown node", "/metrics?nodeName=nope", "prometheus", nil, 404, "no node"},
		{"port not allowed", "/metrics?nodeName=edge1&port=22", "prometheus", nil, 403, "port 22"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := &http.Transport{TLSClientConfig: &tls.Config{ServerName: service, RootCAs: ca.pool}, DisableKeepAlives: true}
			if c.cert != nil {
				tr.TLSClientConfig.Certificates = []tls.Certificate{*c.cert}
			}
			defer tr.CloseIdleConnections()
			req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://"+w.addr(kindTLS)+c.url, nil)
			req.Host = service
			if _, p, ok := strings.Cut(c.url, "port="); ok {
				req.Host += ":" + p
			}
			if c.token != "" {
				req.Header.Set("Authorization", "Bearer "+c.token)
			}
			res, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			if res.StatusCode != c.status || !strings.Contains(string(body), c.body) || c.status == 200 && string(body) != c.body {
				t.Errorf("%d %q, want %d %q", res.StatusCode, body, c.status, c.body)
			}
			if c.status >= 400 && !strings.HasPrefix(string(body), "corax: ") {
				t.Errorf("answer %q", body)
			}
		})
	}
	if log := w.log.String(); !strings.Contains(log, "user=prometheus method=GET path=/metrics") || strings.Contains(log, "nodeName") {
		t.Errorf("audit lines:\n%s", log)
	}
}
