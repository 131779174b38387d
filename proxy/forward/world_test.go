package forward

import (
	"context"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"corax/dataplane"
	"corax/dataplane/netstack"
)

var (
	client4 = netip.MustParseAddr("10.2.0.9")
	pod4    = netip.MustParseAddr("10.1.0.2")
	client6 = netip.MustParseAddr("fd00:2::9")
	pod6    = netip.MustParseAddr("fd00:1::2")
	own     = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd00:1::/64")}
)

// nobody serves nothing: the handler of a site with clients only.
type nobody struct{ lost chan netstack.Lost }

func (nobody) TCP(_ context.Context, a *netstack.Attempt) { a.Refuse() }
func (nobody) UDP(d *netstack.Datagram)                   { d.Site().Reject(d.Quote(), netstack.PortUnreachable) }
func (nobody) Echo(*netstack.Echo)                        {}
func (n nobody) Lost(l netstack.Lost)                     { n.lost <- l }

// world is a far site with clients, and this one with a Forwarder, back to back.
// The address of the pod is exposed as loopback.
type world struct {
	t      *testing.T
	f      *Forwarder
	far    *netstack.Site
	site   *netstack.Site
	lost   chan netstack.Lost
	mu     sync.Mutex
	errors [][]byte                 // ICMP errors to the far site
	pass   func(packet []byte) bool // of what goes to the far site
	ended  context.Context
	ends   func()
}

func newWorld(t *testing.T, cfg Config) *world {
	t.Helper()
	w := &world{t: t, lost: make(chan netstack.Lost, 16)}
	cfg.Expose = append(cfg.Expose,
		Expose{pod4, netip.MustParseAddr("127.0.0.1")}, Expose{pod6, netip.IPv6Loopback()})
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.SetSubnets(own)
	w.f = f
	w.far, err = netstack.NewSite(netstack.SiteConfig{
		Handler: nobody{w.lost}, Send: dataplane.SenderFunc(func(b []dataplane.Packet) { w.site.Send(b) }),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.site, err = netstack.NewSite(netstack.SiteConfig{Handler: f, Send: dataplane.SenderFunc(w.toFar)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.ended = ctx
	var wg sync.WaitGroup
	for _, s := range []*netstack.Site{w.far, w.site} {
		wg.Go(func() {
			if err := s.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	w.ends = func() {
		cancel()
		joined := make(chan struct{})
		go func() { wg.Wait(); close(joined) }()
		select {
		case <-joined:
		case <-time.After(20 * time.Second):
			buf := make([]byte, 1<<20)
			t.Fatalf("Run does not end:\n%s", buf[:runtime.Stack(buf, true)])
		}
	}
	t.Cleanup(w.ends)
	return w
}

func (w *world) toFar(batch []dataplane.Packet) {
	w.mu.Lock()
	var pass []dataplane.Packet
	for _, p := range batch {
		if b := p.Data; b[0]>>4 == 4 && b[9] == 1 && b[20] == 3 || b[0]>>4 == 6 && b[6] == 58 && b[40] == 1 {
			w.errors = append(w.errors, append([]byte{}, b...))
		}
		if w.pass == nil || w.pass(p.Data) {
			pass = append(pass, p)
		}
	}
	w.mu.Unlock()
	w.far.Send(pass)
}

// code waits for an ICMP error and returns its code.
func (w *world) code() int {
	w.t.Helper()
	var code int
	await(w.t, "an ICMP error", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.errors) == 0 {
			return false
		}
		b := w.errors[0]
		code = int(b[21])
		if b[0]>>4 == 6 {
			code = int(b[41])
		}
		return true
	})
	return code
}

func (w *world) dial(to netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	defer context.AfterFunc(w.ended, cancel)()
	from := client4
	if to.Addr().Is6() {
		from = client6
	}
	return w.far.DialTCP(ctx, from, to)
}

func (w *world) counter(reason string) uint64 {
	for _, c := range append(w.f.Counters(), w.site.Counters()...) {
		if c.Name+"{"+c.Reason+"}" == reason || c.Reason == "" && c.Name == reason {
			return c.Value
		}
	}
	w.t.Fatalf("no counter %s", reason)
	return 0
}

// await looks until what is there.
func await(t *testing.T, what string, there func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !there() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no %s", what)
		}
	}
}

// noLeaks fails the test when goroutines outlive it.
func noLeaks(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		var all string
		defer func() {
			if t.Failed() {
				t.Log(all)
			}
		}()
		await(t, "end of all goroutines", func() bool {
			buf := make([]byte, 1<<20)
			all = string(buf[:runtime.Stack(buf, true)])
			return !strings.Contains(all, "gvisor.dev") && !strings.Contains(all, "netstack.(*Site)")
		})
	})
}

// lacking skips a test on a host without an address, as one without IPv6 is, or fails
// it when CI is set.
func lacking(t *testing.T, addr string, err error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	t.Skipf("no %s here: %v", addr, err)
}

func listen(t *testing.T, network, addr string) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		lacking(t, addr, err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

func portOf(a net.Addr) uint16 {
	switch a := a.(type) {
	case *net.TCPAddr:
		return uint16(a.Port)
	case *net.UDPAddr:
		return uint16(a.Port)
	}
	return 0
}
