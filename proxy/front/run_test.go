package front

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"corax/proxy"
)

// TestEnd shows what a plan that ends streams does, and one that does not.
func TestEnd(t *testing.T) {
	w := run(t, plan(), nil)
	w.nodes.set(proxy.Target{Node: "Edge1", Port: 10250}, listen(t, func(c net.Conn) { _, _ = io.Copy(c, c) }))
	addr := w.addr(kindTLS)
	c := dial(t, "tcp", addr)
	hello := helloWith(sni("edge1"))
	_, _ = c.Write(hello)
	if _, err := io.ReadFull(c, make([]byte, len(hello))); err != nil {
		t.Fatal(err)
	}
	w.Apply(Plan{})
	eventually(t, "closed listeners", func() bool { return len(w.Listeners()) == 0 })
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("the front still listens")
	}
	_, _ = io.WriteString(c, "ping")
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatalf("the stream ended with its listener: %v", err)
	}
	w.Apply(Plan{End: true})
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the stream goes on")
	}
	eventually(t, "audit line", func() bool { return strings.Contains(w.log.String(), `end="proxy mode was switched off"`) })
}

// TestApply shows that listeners come and go alone, and that one which cannot be
// opened is reported and hinders no other.
func TestApply(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	p := plan()
	p.TLS = append(p.TLS, TLSListener{netip.MustParseAddrPort(taken.Addr().String()), 9443})
	p.Connect = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")} // without a certificate
	w := run(t, p, nil)
	l := w.Listeners()
	if len(l) != 4 || l[0].Err != nil || l[1].Err == nil || l[2].Err != nil || l[3].Err == nil {
		t.Fatalf("listeners %+v", l)
	}
	before := w.addr(kindTLS)
	asked := make(chan string, 2)
	for _, port := range []uint16{10250, 9443} {
		w.nodes.set(proxy.Target{Node: "Edge1", Port: port}, listen(t, func(net.Conn) { asked <- fmt.Sprint(port) }))
	}
	say := func() string {
		c := dial(t, "tcp", w.addr(kindTLS))
		_, _ = c.Write(helloWith(sni("edge1")))
		_, _ = io.ReadAll(c)
		return <-asked
	}
	if got := say(); got != "10250" {
		t.Errorf("port %s", got)
	}
	p.TLS = []TLSListener{{p.TLS[0].Addr, 9443}}
	p.HTTP, p.Connect = nil, nil
	w.Apply(p)
	eventually(t, "one listener", func() bool { return len(w.Listeners()) == 1 })
	if w.addr(kindTLS) != before {
		t.Errorf("%s is now %s", before, w.addr(kindTLS))
	}
	if got := say(); got != "9443" {
		t.Errorf("port %s", got)
	}
}

// TestStop shows that Run leaves nothing, in whatever state connections are.
func TestStop(t *testing.T) {
	w := run(t, plan(), nil)
	hold := make(chan struct{})
	defer close(hold)
	w.nodes.set(proxy.Target{Node: "Edge1", Port: 10250}, listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }))
	w.nodes.set(proxy.Target{Node: "Edge1", Port: 9100}, listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }))
	_ = dial(t, "tcp", w.addr(kindTLS))
	_ = dial(t, "tcp", w.addr(kindHTTP))
	tlsConn := dial(t, "tcp", w.addr(kindTLS))
	_, _ = tlsConn.Write(helloWith(sni("edge1")))
	web := dial(t, "tcp", w.addr(kindHTTP))
	_, _ = io.WriteString(web, "GET / HTTP/1.1\r\nHost: edge1:9100\r\n\r\n")
	up := dial(t, "tcp", w.addr(kindHTTP))
	_, _ = io.WriteString(up, "GET / HTTP/1.1\r\nHost: edge1:9100\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	eventually(t, "three streams", func() bool { return w.cfg.Live.Len() == 3 })
	w.stop()
	if w.cfg.Live.Len() != 0 {
		t.Errorf("left: %+v", w.cfg.Live.List())
	}
}

// TestStaleSocket shows that the socket of an agent that was killed is taken over,
// and that of one which lives is not.
func TestStaleSocket(t *testing.T) {
	for _, alive := range []bool{false, true} {
		p := Plan{ConnectSocket: filepath.Join(t.TempDir(), "connect.sock")}
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: p.ConnectSocket})
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		if !alive {
			ln.SetUnlinkOnClose(false)
			_ = ln.Close()
		}
		w := run(t, p, nil)
		if err := w.Listeners()[0].Err; (err != nil) != alive || alive && !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("alive %v: %v", alive, err)
		}
		w.stop()
		if _, err := os.Stat(p.ConnectSocket); (err == nil) != alive {
			t.Errorf("alive %v: afterwards %v", alive, err)
		}
	}
}
