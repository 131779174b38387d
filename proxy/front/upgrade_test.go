package front

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"corax/proxy"
)

// upgrader is a node that changes to what it is asked for, or to say, and then
// sends back in capitals what it gets, until the end of it.
func upgrader(say string) func(net.Conn) {
	return func(c net.Conn) {
		br := bufio.NewReader(c)
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		protocol := r.Header.Get("Upgrade")
		if say != "" {
			protocol = say
		}
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\nX-Token: %q\r\nSec-WebSocket-Accept: abc\r\n\r\nEARLY ", protocol, r.Header.Get("Authorization"))
		buf := make([]byte, 100)
		for {
			n, err := br.Read(buf)
			_, _ = io.WriteString(c, strings.ToUpper(string(buf[:n])))
			if err != nil {
				_ = c.(interface{ CloseWrite() error }).CloseWrite()
				return
			}
		}
	}
}

func TestUpgrade(t *testing.T) {
	ca := newAuthority(t)
	w := run(t, plan(), func(c *Config) {
		c.Auth = &tokens{may: map[string]string{"admin": "create proxy", "reader": "get proxy,get metrics"}}
		c.NodeCAs = ca.cas
	})
	cert := ca.issue("system:node:Edge1", "edge1")
	w.nodes.set(proxy.Target{Node: "Edge1", Port: 9100}, listen(t, upgrader("")))
	w.nodes.set(proxy.Target{Node: "edge2", Port: 9100}, listen(t, upgrader("h2c")))
	w.nodes.set(proxy.Target{Node: "Edge1", Port: 10250}, listen(t, func(c net.Conn) {
		upgrader("")(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*cert}}))
	}))
	w.httpNode(proxy.Target{Node: "edge2", Port: 9443}, nil, http.NotFoundHandler())
	for _, c := range []struct {
		name, host, user, protocol string
		status                     int
		token                      string
	}{
		{"SPDY", "edge1:9100", "admin", "SPDY/3.1", 101, ""},
		{"WebSocket", "edge1:9100", "admin", "websocket", 101, ""},
		{"to a kubelet", "edge1:10250", "admin", "SPDY/3.1", 101, "Bearer admin"},
		{"HTTP/2", "edge1:9100", "admin", "h2c", 400, ""},
		{"reading does not suffice", "edge1:9100", "reader", "websocket", 403, ""},
		{"the node changes to something else", "edge2:9100", "admin", "websocket", 502, ""},
		{"the node does not listen", "edge2:10255", "admin", "websocket", 502, ""},
		{"the node wants TLS it has not", "edge2:9443", "admin", "websocket", 502, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := dial(t, "tcp", w.addr(kindHTTP))
			fmt.Fprintf(conn, "POST /exec/ns/pod/c?command=secret HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\nahead ", c.host, c.user, c.protocol)
			br := bufio.NewReader(conn)
			res, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != c.status {
				t.Fatalf("status %d, want %d", res.StatusCode, c.status)
			}
			if c.status != 101 {
				return
			}
			if res.Header.Get("X-Token") != fmt.Sprintf("%q", c.token) || res.Header.Get("Upgrade") != c.protocol {
				t.Errorf("header %v", res.Header)
			}
			_, _ = io.WriteString(conn, "behind")
			_ = conn.(*net.TCPConn).CloseWrite()
			if got, err := io.ReadAll(br); string(got) != "EARLY AHEAD BEHIND" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	eventually(t, "end of streams", func() bool { return w.cfg.Live.Len() == 0 })
	if log := w.log.String(); strings.Contains(log, "secret") || !strings.Contains(log, "user=admin method=POST path=/exec/ns/pod/c") || !strings.Contains(log, "status=101 end=done") {
		t.Errorf("audit lines:\n%s", log)
	}
}

// TestDeclined shows that an answer which is no upgrade is passed on.
func TestDeclined(t *testing.T) {
	w := run(t, plan(), nil)
	w.httpNode(proxy.Target{Node: "Edge1", Port: 9100}, nil, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		http.Error(rw, "no exec here", http.StatusTeapot)
	}))
	got := talk(t, "tcp", w.addr(kindHTTP), "GET /x HTTP/1.1\r\nHost: edge1:9100\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if status, _, body := answerOf(t, got); status != http.StatusTeapot || body != "no exec here\n" {
		t.Errorf("%d %q", status, body)
	}
}

// TestUpgradeWhereTLSEnds has TLS on both sides of the front, and ends that close
// one direction first.
func TestUpgradeWhereTLSEnds(t *testing.T) {
	ca := newAuthority(t)
	w := run(t, plan(), func(c *Config) {
		c.Auth = &tokens{may: map[string]string{"admin": "create proxy"}}
		c.Certificate = func() (*tls.Certificate, error) { return ca.issue("front", "svc"), nil }
		c.ServiceNames, c.NodeCAs = []string{"svc"}, ca.cas
	})
	cert := ca.issue("system:node:Edge1", "edge1")
	w.nodes.set(proxy.Target{Node: "Edge1", Port: 10250}, listen(t, func(c net.Conn) {
		upgrader("")(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*cert}}))
	}))
	conn := tls.Client(dial(t, "tcp", w.addr(kindTLS)), &tls.Config{ServerName: "svc", RootCAs: ca.pool})
	fmt.Fprintf(conn, "GET /exec/ns/pod/c?nodeName=edge1 HTTP/1.1\r\nHost: svc:10250\r\nAuthorization: Bearer admin\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nahead ")
	br := bufio.NewReader(conn)
	res, err := http.ReadResponse(br, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("%v, %v", res, err)
	}
	big := strings.Repeat("behind ", 100_000)
	go func() {
		_, _ = io.WriteString(conn, big)
		_ = conn.CloseWrite()
	}()
	if got, err := io.ReadAll(br); string(got) != "EARLY AHEAD "+strings.ToUpper(big) || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	eventually(t, "end of the stream", func() bool { return w.cfg.Live.Len() == 0 })
	if s := w.cfg.Counters.Snapshot(); s.Up < uint64(len(big)) || s.Up > 2*uint64(len(big)) || s.Down < uint64(len(big)) || s.Down > 2*uint64(len(big)) {
		t.Errorf("%d bytes up, %d down, of %d", s.Up, s.Down, len(big))
	}
}
