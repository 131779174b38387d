package channel_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"corax/control"
	"corax/proxy"
	"corax/proxy/channel"
	"corax/proxy/preamble"
)

var (
	g1 = netip.MustParseAddr("fd63:6f72:6178::1")
	g2 = netip.MustParseAddr("fd63:6f72:6178::2")
	g3 = netip.MustParseAddr("fd63:6f72:6178::3")
)

// duplex is a connection in memory that can be half closed.
type duplex struct {
	net.Conn          // reads
	out      net.Conn // writes
}

func (d duplex) Write(b []byte) (int, error)        { return d.out.Write(b) }
func (d duplex) SetWriteDeadline(t time.Time) error { return d.out.SetWriteDeadline(t) }
func (d duplex) SetDeadline(t time.Time) error {
	return errors.Join(d.Conn.SetDeadline(t), d.out.SetDeadline(t))
}
func (d duplex) CloseWrite() error { return d.out.Close() }
func (d duplex) Close() error      { return errors.Join(d.Conn.Close(), d.out.Close()) }

func memory() (a, b duplex) {
	ar, bw := net.Pipe()
	br, aw := net.Pipe()
	return duplex{ar, aw}, duplex{br, bw}
}

// gateways are what answers at overlay addresses. One that is not in the map takes
// no connection for ever.
type gateways struct {
	answer map[netip.Addr]func() (*proxy.Refusal, error)

	mu    sync.Mutex
	asked []netip.Addr
	open  sync.WaitGroup // the far ends of connections
}

func (g *gateways) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	g.note(to.Addr())
	answer := g.answer[to.Addr()]
	if answer == nil {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	r, err := answer()
	if err != nil {
		return nil, err
	}
	a, b := memory()
	g.open.Go(func() {
		defer b.Close()
		target, err := preamble.ReadAsk(b)
		if err != nil || target != (proxy.Target{Node: "n1", Port: 10250}) {
			return
		}
		if r == silent {
			_, _ = b.Read(make([]byte, 1))
			return
		}
		if r == gone {
			return
		}
		_, _ = b.Write(preamble.AppendAnswer(nil, r))
		_, _ = b.Read(make([]byte, 1)) // until the channel closes
	})
	return a, nil
}

func (g *gateways) note(a netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked = append(g.asked, a)
}

var silent, gone = proxy.Refuse(250, "silent"), proxy.Refuse(251, "gone")

func serves() (*proxy.Refusal, error) { return nil, nil }

func refuses(c proxy.Code) func() (*proxy.Refusal, error) {
	return func() (*proxy.Refusal, error) { return proxy.Refuse(c, "edge says "+c.String()), nil }
}

func fails() (*proxy.Refusal, error) { return nil, errors.New("connection refused") }

func TestChoiceOfGatewayNode(t *testing.T) {
	type answers = map[netip.Addr]func() (*proxy.Refusal, error)
	for _, tt := range []struct {
		name    string
		via     []netip.Addr
		answer  answers
		want    netip.Addr // zero: an error
		code    proxy.Code
		text    string
		after   time.Duration // no later than this
		again   []netip.Addr  // who is asked by the next request
		noAgain bool
	}{
		{
			name: "the first serves", via: []netip.Addr{g1, g2}, answer: answers{g1: serves, g2: serves},
			want: g1, again: []netip.Addr{g1},
		},
		{
			name: "the first is dead", via: []netip.Addr{g1, g2}, answer: answers{g2: serves},
			want: g2, after: time.Second, again: []netip.Addr{g2},
		},
		{
			name: "two are dead", via: []netip.Addr{g1, g2, g3}, answer: answers{g3: serves},
			want: g3, after: 2 * time.Second, again: []netip.Addr{g3},
		},
		{
			name: "the first refuses connections", via: []netip.Addr{g1, g2}, answer: answers{g1: fails, g2: serves},
			want: g2, again: []netip.Addr{g2},
		},
		{
			name: "the first is full", via: []netip.Addr{g1, g2}, answer: answers{g1: refuses(proxy.CodeLimit), g2: serves},
			want: g2, again: []netip.Addr{g2},
		},
		{
			name: "the first does not know the node yet", via: []netip.Addr{g1, g2},
			answer: answers{g1: refuses(proxy.CodeUnknownNode), g2: serves},
			want:   g2, again: []netip.Addr{g1, g2},
		},
		{
			name: "the first ends instead of answering", via: []netip.Addr{g1, g2},
			answer: answers{g1: func() (*proxy.Refusal, error) { return gone, nil }, g2: serves},
			want:   g2, again: []netip.Addr{g2},
		},
		{
			name: "the first is silent after the request", via: []netip.Addr{g1, g2},
			answer: answers{g1: func() (*proxy.Refusal, error) { return silent, nil }, g2: serves},
			want:   g2, after: 12 * time.Second, again: []netip.Addr{g2},
		},
		{
			name: "the node refuses: nobody else is asked", via: []netip.Addr{g1, g2},
			answer: answers{g1: refuses(proxy.CodeDial), g2: serves}, code: proxy.CodeDial, text: "edge says dial",
			again: []netip.Addr{g1},
		},
		{
			name: "the port is refused: nobody else is asked", via: []netip.Addr{g1, g2},
			answer: answers{g1: refuses(proxy.CodePort), g2: serves}, code: proxy.CodePort, again: []netip.Addr{g1},
		},
		{
			name: "all refuse the caller", via: []netip.Addr{g1, g2},
			answer: answers{g1: refuses(proxy.CodeCaller), g2: refuses(proxy.CodeCaller)}, code: proxy.CodeCaller, noAgain: true,
		},
		{
			name: "all are dead", via: []netip.Addr{g1, g2}, code: proxy.CodeNoPath, text: "no answer within 20s",
			after: 20 * time.Second, noAgain: true,
		},
		{
			name: "all refuse connections", via: []netip.Addr{g1, g2}, answer: answers{g1: fails, g2: fails},
			code: proxy.CodeNoPath, text: "connection refused", noAgain: true,
		},
		{name: "there is none", code: proxy.CodeNoPath, text: "no active gateway node", noAgain: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &gateways{answer: tt.answer}
				c, err := channel.New(channel.Config{Overlay: g.dial})
				if err != nil {
					t.Fatal(err)
				}
				c.Apply([]control.ProxyNode{{Name: "n1", Gateway: "edge", IP: netip.MustParseAddr("10.0.0.1"), Via: tt.via, Ports: []uint16{10250}}})
				dial := func() (netip.Addr, error) {
					conn, err := c.Dial(t.Context(), proxy.Target{Node: "n1", Port: 10250})
					if err != nil {
						return netip.Addr{}, err
					}
					defer conn.Close()
					return conn.(*channel.Conn).Via, nil
				}
				started := time.Now()
				got, err := dial()
				if got != tt.want || proxy.CodeOf(err) != tt.code {
					t.Fatalf("over %v: %v", got, err)
				}
				if err != nil && !strings.Contains(err.Error(), tt.text) {
					t.Errorf("error %q, want %q in it", err, tt.text)
				}
				if d := time.Since(started); d > tt.after {
					t.Errorf("it took %v, more than %v", d, tt.after)
				}
				if tt.noAgain {
					g.open.Wait()
					return
				}
				g.asked = nil
				_, _ = dial()
				if !slices.Equal(g.asked, tt.again) {
					t.Errorf("the next request asked %v, not %v", g.asked, tt.again)
				}
				g.open.Wait()
			})
		})
	}
}

// A gateway node of which nothing comes is given up after five seconds; one that is
// only slow has all of its time.
func TestSilentGatewayNode(t *testing.T) {
	for _, tt := range []struct {
		name   string
		heard  time.Duration // since the start; negative: before
		silent bool          // g2, too
		want   time.Duration
		text   string
	}{
		{"never heard", -time.Hour, false, 5 * time.Second, "nothing came from it within 5s"},
		{"heard before", -time.Second, false, 5 * time.Second, "nothing came"},
		{"the path is slow", 4 * time.Second, false, 20 * time.Second, "no answer within 20s"},
		{"two of them", -time.Second, true, 6 * time.Second, "nothing came"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &gateways{}
				started := time.Now()
				c, err := channel.New(channel.Config{Overlay: g.dial, Heard: func(a netip.Addr) time.Time {
					return started.Add(tt.heard)
				}})
				if err != nil {
					t.Fatal(err)
				}
				via := []netip.Addr{g1}
				if tt.silent {
					via = append(via, g2)
				}
				c.Apply([]control.ProxyNode{{Name: "n1", Via: via, Ports: []uint16{10250}}})
				_, err = c.Dial(t.Context(), proxy.Target{Node: "n1", Port: 10250})
				if proxy.CodeOf(err) != proxy.CodeNoPath || !strings.Contains(err.Error(), tt.text) || time.Since(started) != tt.want {
					t.Errorf("after %v: %v", time.Since(started), err)
				}
			})
		})
	}
}

// A gateway node that failed is tried first again after half a minute.
func TestFailureIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gateways{answer: map[netip.Addr]func() (*proxy.Refusal, error){g1: fails, g2: serves}}
		c, err := channel.New(channel.Config{Overlay: g.dial})
		if err != nil {
			t.Fatal(err)
		}
		c.Apply([]control.ProxyNode{{Name: "n1", Via: []netip.Addr{g1, g2}, Ports: []uint16{10250}}})
		for _, step := range []struct {
			wait time.Duration
			want []netip.Addr
		}{
			{0, []netip.Addr{g1, g2}},
			{29 * time.Second, []netip.Addr{g2}},
			{2 * time.Second, []netip.Addr{g1, g2}},
		} {
			time.Sleep(step.wait)
			g.asked = nil
			conn, err := c.Dial(t.Context(), proxy.Target{Node: "n1", Port: 10250})
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
			if !slices.Equal(g.asked, step.want) {
				t.Errorf("asked %v, want %v", g.asked, step.want)
			}
		}
		g.open.Wait()
	})
}

func TestDialEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gateways{answer: map[netip.Addr]func() (*proxy.Refusal, error){g2: func() (*proxy.Refusal, error) { return silent, nil }}}
		c, err := channel.New(channel.Config{Overlay: g.dial})
		if err != nil {
			t.Fatal(err)
		}
		for _, via := range []netip.Addr{g1, g2} {
			c.Apply([]control.ProxyNode{{Name: "n1", Via: []netip.Addr{via}, Ports: []uint16{10250}}})
			ctx, cancel := context.WithCancelCause(t.Context())
			left := errors.New("the client has left")
			time.AfterFunc(3*time.Second, func() { cancel(left) })
			started := time.Now()
			_, err := c.Dial(ctx, proxy.Target{Node: "n1", Port: 10250})
			if !errors.Is(err, left) && !strings.Contains(err.Error(), left.Error()) || time.Since(started) != 3*time.Second {
				t.Errorf("after %v: %v", time.Since(started), err)
			}
		}
		g.open.Wait()
	})
}

func TestOwnDomain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var dialled string
	c, err := channel.New(channel.Config{
		Overlay: func(context.Context, netip.AddrPort) (net.Conn, error) {
			t.Error("asked over the overlay")
			return nil, errors.New("no")
		},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			dialled = address
			if strings.HasPrefix(address, "10.0.0.2:") {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
			}
			var d net.Dialer
			return d.DialContext(ctx, network, l.Addr().String())
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	own := func(name, ip string) control.ProxyNode {
		return control.ProxyNode{Name: name, Gateway: "cloud", IP: netip.MustParseAddr(ip), Own: true, Ports: []uint16{9100, 10250}}
	}
	c.Apply([]control.ProxyNode{own("c1", "10.0.0.1"), own("c2", "10.0.0.2"), own("bad", "169.254.169.254")})
	for _, tt := range []struct {
		target  proxy.Target
		code    proxy.Code
		dialled string
	}{
		{proxy.Target{Node: "c1", Port: 10250}, proxy.CodeNone, "10.0.0.1:10250"},
		{proxy.Target{Node: "c1", Port: 22}, proxy.CodePort, ""},
		{proxy.Target{Node: "c2", Port: 9100}, proxy.CodeDial, "10.0.0.2:9100"},
		{proxy.Target{Node: "bad", Port: 9100}, proxy.CodeDial, ""},
		{proxy.Target{Node: "10.0.0.1", Port: 10250}, proxy.CodeUnknownNode, ""},
	} {
		dialled = ""
		conn, err := c.Dial(t.Context(), tt.target)
		if proxy.CodeOf(err) != tt.code || dialled != tt.dialled {
			t.Errorf("%s: dialled %q, %v", tt.target, dialled, err)
		}
		if conn != nil {
			if conn.(*channel.Conn).Via.IsValid() || conn.(*channel.Conn).SetLinger(0) != nil {
				t.Errorf("%s: not a plain TCP connection", tt.target)
			}
			_ = conn.Close()
		}
	}
}
