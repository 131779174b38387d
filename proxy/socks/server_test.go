package socks

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"syscall"
	"testing"
	"time"

	"corax/proxy/outbound"
	"corax/proxy/proxytest"
)

// fake is a tunnel that leads to loopback.
type fake struct{}

func (fake) DialTCP(ctx context.Context, host string, port uint16) (net.Conn, error) {
	switch host {
	case "forbidden":
		return nil, fmt.Errorf("x: %w", outbound.ErrForbidden)
	case "refused":
		return nil, syscall.ECONNREFUSED
	case "unknown":
		return nil, outbound.ErrNoName
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
}

func (fake) Addrs(_ context.Context, host string) ([]netip.Addr, error) {
	if host == "forbidden" {
		return nil, outbound.ErrForbidden
	}
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}

func (fake) Targets(_ context.Context, _ string, at netip.AddrPort) ([]netip.AddrPort, error) {
	return []netip.AddrPort{at}, nil
}

func (fake) ListenUDP(bool) (net.PacketConn, error) { return net.ListenPacket("udp4", "127.0.0.1:0") }

// run serves on a port, and joins the server when the test ends.
func run(t *testing.T, users map[string]string, serve func(*Server) func(context.Context, net.Listener) error) (*Server, string) {
	t.Helper()
	s, err := New(Config{Dialer: fake{}, Users: users})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.Open() != 0 {
			t.Errorf("%d are open", s.Open())
		}
	})
	proxytest.Run(t, func(ctx context.Context) error { return serve(s)(ctx, ln) })
	return s, ln.Addr().String()
}

func socksServer(s *Server) func(context.Context, net.Listener) error { return s.ServeSOCKS }
func httpServer(s *Server) func(context.Context, net.Listener) error  { return s.ServeConnect }

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c.(*net.TCPConn)
}

func request(cmd byte, host string, port uint16) []byte {
	b := append([]byte{5, cmd, 0, 3, byte(len(host))}, host...)
	return binary.BigEndian.AppendUint16(b, port)
}

func TestSOCKS(t *testing.T) {
	port := proxytest.TCP(t, proxytest.AtEnd(bytes.ToUpper)).Port()
	users := map[string]string{"user": "secret"}
	good, bad := []byte("\x01\x04user\x06secret"), []byte("\x01\x04user\x06Secret")
	none, password := []byte{5, 1, 0}, []byte{5, 2, 0, 2}
	for _, tt := range []struct {
		name    string
		users   map[string]string
		send    []byte // after which everything is read
		want    string // of the answer
		counter string
	}{
		{"connect", nil, append(append([]byte{}, none...), append(request(1, "pod", port), "abc"...)...), "ABC", ""},
		{"password", users, bytes.Join([][]byte{password, good, request(1, "pod", port), []byte("abc")}, nil), "ABC", ""},
		{"wrong password", users, bytes.Join([][]byte{password, bad, request(1, "pod", port)}, nil), "\x05\x02\x01\x01", "denied"},
		{"no password", users, bytes.Join([][]byte{none, request(1, "pod", port)}, nil), "\x05\xff", "denied"},
		{"forbidden", nil, append(append([]byte{}, none...), request(1, "forbidden", port)...), "\x05\x00\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00", "forbidden"},
		{"refused", nil, append(append([]byte{}, none...), request(1, "refused", port)...), "\x05\x00\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00", "failed"},
		{"unknown name", nil, append(append([]byte{}, none...), request(1, "unknown", port)...), "\x05\x00\x05\x04\x00\x01\x00\x00\x00\x00\x00\x00", "failed"},
		{"bind", nil, append(append([]byte{}, none...), request(2, "pod", port)...), "\x05\x00\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00", "malformed"},
		{"address type", nil, []byte{5, 1, 0, 5, 1, 0, 9}, "\x05\x00\x05\x08\x00\x01\x00\x00\x00\x00\x00\x00", "malformed"},
		{"HTTP", nil, []byte("GET / HTTP/1.1\r\n\r\n"), "", "malformed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, addr := run(t, tt.users, socksServer)
			c := dial(t, addr)
			if _, err := c.Write(tt.send); err != nil {
				t.Fatal(err)
			}
			_ = c.CloseWrite()
			got, _ := io.ReadAll(c) // it may be reset: what it did not read was more
			if !bytes.HasSuffix(got, []byte(tt.want)) || tt.want == "" && len(got) > 0 {
				t.Errorf("got %x", got)
			}
			for _, ct := range s.Counters() {
				if ct.Name == "socks_drop_total" && (ct.Value != 0) != (ct.Reason == tt.counter) {
					t.Errorf("counter %s is %d", ct.Reason, ct.Value)
				}
			}
		})
	}
}

func TestAssociate(t *testing.T) {
	to := proxytest.UDP(t, bytes.ToUpper)
	s, addr := run(t, nil, socksServer)
	c := dial(t, addr)
	if _, err := c.Write(append([]byte{5, 1, 0}, request(3, "0", 0)...)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2+10)
	if _, err := io.ReadFull(c, b); err != nil || b[3] != 0 {
		t.Fatalf("%x, %v", b, err)
	}
	relay := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[6:10])), binary.BigEndian.Uint16(b[10:])))
	client, err := net.DialUDP("udp", nil, relay)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(10 * time.Second))
	send := func(host string, payload string) {
		p := append([]byte{0, 0, 0, 3, byte(len(host))}, host...)
		p = binary.BigEndian.AppendUint16(p, to.Port())
		if _, err := client.Write(append(p, payload...)); err != nil {
			t.Fatal(err)
		}
	}
	for _, payload := range []string{"first", "second"} {
		send("pod", payload)
		p := make([]byte, 2000)
		n, err := client.Read(p)
		want := append(appendDatagram(nil, to), bytes.ToUpper([]byte(payload))...)
		if err != nil || !bytes.Equal(p[:n], want) {
			t.Errorf("%x, %v; want %x", p[:n], err, want)
		}
	}
	// Nobody else may use the relay, and nothing forbidden is sent to.
	stranger, err := net.DialUDP("udp", nil, relay)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if _, err := stranger.Write(append(appendDatagram(nil, to), 'x')); err != nil {
		t.Fatal(err)
	}
	send("forbidden", "x")
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for ; s.datagrams.Load() != 2 || s.forbidden.Load() != 1; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%d datagrams dropped, %d forbidden", s.datagrams.Load(), s.forbidden.Load())
		}
	}
	// The end of the connection is the end of the relay.
	_ = c.Close()
	for ; ; <-tick.C {
		if _, err := client.Write([]byte{0}); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the relay lives")
		}
	}
}

func TestHTTPConnect(t *testing.T) {
	port := proxytest.TCP(t, proxytest.AtEnd(bytes.ToUpper)).Port()
	users := map[string]string{"a": "b"}
	for _, tt := range []struct {
		name  string
		users map[string]string
		text  string
		code  int
		want  string
	}{
		{"good", nil, "CONNECT pod:%d HTTP/1.1\r\nHost: pod\r\n\r\nabc", 200, "ABC"},
		{"password", users, "CONNECT pod:%d HTTP/1.1\r\nHost: pod\r\nProxy-Authorization: Basic YTpi\r\n\r\nabc", 200, "ABC"},
		{"no password", users, "CONNECT pod:%d HTTP/1.1\r\nHost: pod\r\n\r\n", 407, "user and password are needed\n"},
		{"wrong password", users, "CONNECT pod:%d HTTP/1.1\r\nHost: pod\r\nProxy-Authorization: Basic YTpj\r\n\r\n", 407, "user and password are needed\n"},
		{"forbidden", nil, "CONNECT forbidden:%d HTTP/1.1\r\nHost: pod\r\n\r\n", 403, ""},
		{"refused", nil, "CONNECT refused:%d HTTP/1.1\r\nHost: pod\r\n\r\n", 502, ""},
		{"GET", nil, "GET http://pod:%d/ HTTP/1.1\r\nHost: pod\r\n\r\n", 405, "only CONNECT is served\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, addr := run(t, tt.users, httpServer)
			c := dial(t, addr)
			fmt.Fprintf(c, tt.text, port)
			_ = c.CloseWrite()
			r := bufio.NewReader(c)
			resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(r)
			if resp.StatusCode != tt.code || tt.want != "" && string(b) != tt.want {
				t.Errorf("%d, %q", resp.StatusCode, b)
			}
		})
	}
}
