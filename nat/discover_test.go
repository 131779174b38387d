package nat

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"corax/nat/path"
	"corax/nat/stun"
)

func addrs(list ...string) (out []netip.AddrPort) {
	for _, s := range list {
		out = append(out, netip.MustParseAddrPort(s))
	}
	return out
}

func TestAdopt(t *testing.T) {
	const (
		none      = stun.MappingNone
		cone      = stun.MappingEndpointIndependent
		dependent = stun.MappingAddressAndPortDependent
		portOnly  = stun.FilteringAddressAndPortDependent
	)
	known := stun.Family{Mapping: cone, Filtering: portOnly, Lifetime: time.Minute}
	random := stun.Family{Mapping: dependent, PortStep: 2, Filtering: portOnly}
	old, fresh := addrs("203.0.113.1:1"), addrs("203.0.113.2:2")
	for _, tt := range []struct {
		name   string
		nat    stun.Family // as known before
		public []netip.AddrPort
		got    stun.Family // what the discovery says
		ready  bool
		want   stun.Family
		told   []netip.AddrPort
	}{
		{"nothing yet", known, old, stun.Family{}, false, known, old},
		{"nothing yet, at the very start", stun.Family{}, nil, stun.Family{}, false, stun.Family{}, nil},
		{
			"no NAT, before it is ready",
			stun.Family{},
			nil,
			stun.Family{Mapping: none, Public: fresh},
			false,
			stun.Family{Mapping: none},
			fresh,
		},
		{
			"cone, before it is ready",
			stun.Family{},
			nil,
			stun.Family{Mapping: cone, Public: fresh},
			false,
			stun.Family{Mapping: cone},
			fresh,
		},
		{
			"only one server answered", known, old,
			stun.Family{Public: fresh},
			true,
			known, fresh,
		},
		{
			"only one server answered, behind a random NAT", random, old,
			stun.Family{Public: fresh},
			true,
			random, fresh,
		},
		{
			"the same mapping, nothing else known yet", known, old,
			stun.Family{Mapping: cone, Public: fresh},
			false,
			known, fresh,
		},
		{
			"the same mapping, all known", known, old,
			stun.Family{Mapping: cone, Filtering: stun.FilteringEndpointIndependent, Lifetime: time.Hour, Public: fresh},
			true,
			stun.Family{Mapping: cone, Filtering: stun.FilteringEndpointIndependent, Lifetime: time.Hour},
			fresh,
		},
		{
			"another mapping, the filtering is not known", known, old,
			stun.Family{Mapping: none, Public: fresh},
			true,
			stun.Family{Mapping: none},
			fresh,
		},
		{
			"dependent before it is ready", known, old,
			stun.Family{Mapping: dependent, PortStep: 1, Public: fresh},
			false,
			known, fresh,
		},
		{
			"dependent before it is ready, at the very start",
			stun.Family{},
			nil,
			stun.Family{Mapping: dependent, PortStep: 1, Public: fresh},
			false,
			stun.Family{},
			fresh,
		},
		{
			"dependent", known, old,
			stun.Family{Mapping: dependent, PortStep: 1, Public: fresh},
			true,
			stun.Family{Mapping: dependent, PortStep: 1},
			fresh,
		},
		{
			"dependent, the step is kept", random, old,
			stun.Family{Mapping: dependent, Public: fresh},
			true,
			random, fresh,
		},
		{
			"dependent, one address of each", known, old,
			stun.Family{Mapping: dependent, Public: addrs("203.0.113.2:7", "203.0.113.2:8", "[2001:db8::2]:9", "203.0.113.2:10")},
			true,
			stun.Family{Mapping: dependent},
			addrs("203.0.113.2:7", "[2001:db8::2]:9"),
		},
		{"blocked, not ready", known, old, stun.Family{Blocked: true}, false, known, old},
		{"blocked", known, old, stun.Family{Blocked: true}, true, stun.Family{Blocked: true}, nil},
		{
			"not blocked any more",
			stun.Family{Blocked: true},
			nil,
			stun.Family{Public: fresh},
			true,
			stun.Family{},
			fresh,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := discovery{nat: tt.nat, public: slices.Clone(tt.public)}
			d.adopt(stun.Report{Family: tt.got}, tt.ready)
			ignore := cmpopts.IgnoreFields(stun.Family{}, "Public", "Servers")
			if diff := cmp.Diff(tt.want, d.nat, ignore); diff != "" {
				t.Errorf("NAT (-want +got)\n%s", diff)
			}
			if !slices.Equal(d.public, tt.told) {
				t.Errorf("told %v, want %v", d.public, tt.told)
			}
			if len(tt.got.Public) > 0 && len(d.public) > 0 {
				if d.public[0] = old[0]; tt.got.Public[0] == old[0] {
					t.Error("it keeps the report's memory")
				}
			}
		})
	}
}

func twoHubsAnd(edge func(w *internet)) func(w *internet) {
	return func(w *internet) {
		w.hub("hub")
		w.hub("hub2")
		edge(w)
	}
}

// candidates are what x told n.
func (n *node) candidates(x *node) (c []path.Candidate) {
	n.in(func(a *Agent) { c = slices.Clone(a.peers[x.key].remote.Candidates) })
	return c
}

func reflexive(c []path.Candidate) (out []netip.AddrPort) {
	for _, x := range c {
		if x.Kind == path.ServerReflexive {
			out = append(out, x.Addr)
		}
	}
	return out
}

// TestLocalNAT looks at what nodes find out about themselves and tell a hub.
func TestLocalNAT(t *testing.T) {
	for _, tt := range []struct {
		name    string
		build   func(w *internet)
		mapping uint8
		public  int // candidates
	}{
		{"no NAT", twoHubsAnd(func(w *internet) { w.edge("a").nat = nil }), path.MappingNone, 0},
		{"cone", twoHubsAnd(func(w *internet) { w.edge("a") }), path.MappingEndpointIndependent, 1},
		{"random", twoHubsAnd(func(w *internet) { w.symmetric("a") }), path.MappingAddressAndPortDependent, 1},
		{"one server only", func(w *internet) { w.hub("hub"); w.edge("a") }, path.MappingUnknown, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab(t, func(w *internet) {
				tt.build(w)
				if a := w.node("a"); a.nat == nil {
					delete(w.at, a.addr)
					a.addr = netip.MustParseAddr("203.0.113.200")
					w.at[a.addr] = a
				}
			}, func(t *testing.T, w *internet) {
				hub, a := w.node("hub"), w.node("a")
				w.run(10 * time.Second)
				if nat := a.agent.LocalNAT(t.Context()); nat.Mapping != tt.mapping || nat.Blocked || nat.PortStep != 0 {
					t.Errorf("NAT %+v", nat)
				}
				if s := hub.status(a); s.Remote.Mapping != tt.mapping {
					t.Errorf("the hub was told %+v", s.Remote)
				}
				c := hub.candidates(a)
				host := path.Candidate{Kind: path.Host, Addr: netip.AddrPortFrom(a.addr, 4500)}
				if r := reflexive(c); len(r) != tt.public || !slices.Contains(c, host) {
					t.Errorf("candidates %v", c)
				}
			})
		})
	}
}

// TestBlocked starts a node where UDP is blocked, and lets it through later.
func TestBlocked(t *testing.T) {
	lab(t, twoHubsAnd(func(w *internet) { w.edge("a").blocked = true }), func(t *testing.T, w *internet) {
		hub, a := w.node("hub"), w.node("a")
		w.within(10*time.Second, "it notices", func() bool { return a.agent.LocalNAT(t.Context()).Blocked })
		w.run(5 * time.Minute)
		if s := a.status(hub); s.Path.Proven || s.Told {
			t.Errorf("%+v", s.Path)
		}
		w.mu.Lock()
		a.blocked = false
		w.mu.Unlock()
		w.within(2*time.Minute, "it notices", func() bool {
			nat := a.agent.LocalNAT(t.Context())
			return !nat.Blocked && nat.Mapping == path.MappingEndpointIndependent
		})
		w.within(5*time.Second, "a session", func() bool { return isDirect(a.status(hub)) })
		w.run(2 * time.Second)
		if r := reflexive(hub.candidates(a)); len(r) != 1 {
			t.Errorf("told %v", r)
		}
	})
}

// TestAnotherMapping gives the edge's NAT another public address, with a word of
// the host that something changed, and without.
func TestAnotherMapping(t *testing.T) {
	for _, tt := range []struct {
		name   string
		told   bool
		within time.Duration
	}{
		{"told", true, 3 * time.Second},
		{"not told", false, 20 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab(t, twoHubsAnd(func(w *internet) { w.edge("a") }), func(t *testing.T, w *internet) {
				hub, a := w.node("hub"), w.node("a")
				w.run(10 * time.Second)
				addr := netip.MustParseAddr("203.0.113.222")
				w.mu.Lock()
				delete(w.at, a.nat.public)
				w.at[addr], a.nat.public = a, addr
				clear(a.nat.mappings)
				clear(a.nat.open)
				w.mu.Unlock()
				if tt.told {
					a.agent.NetworkChanged("another address")
				}
				want := []netip.AddrPort{netip.AddrPortFrom(addr, 4500)}
				w.within(tt.within, "the hub hears of it", func() bool { return slices.Equal(reflexive(hub.candidates(a)), want) })
			})
		})
	}
}

// TestDiscoveryBursts has many reasons to ask come at once: the servers are asked
// once more, and once again for what came meanwhile.
func TestDiscoveryBursts(t *testing.T) {
	lab(t, twoHubsAnd(func(w *internet) { w.edge("a") }), func(t *testing.T, w *internet) {
		a := w.node("a")
		w.run(time.Minute)
		asked := func() (n int) {
			a.dev.mu.Lock()
			defer a.dev.mu.Unlock()
			for _, r := range a.dev.sent {
				if m, err := stun.Parse(r.Data); err == nil && m.Kind == stun.KindRequest && r.Path.Socket == 0 {
					n++
				}
			}
			return n
		}
		before := asked()
		for range 20 {
			a.in(func(a *Agent) { a.discover("test") })
		}
		w.run(time.Minute)
		if n := asked() - before; n != 4 {
			t.Errorf("%d requests to two servers", n)
		}
	})
}

func TestNetcheckInBubble(t *testing.T) {
	lab(t, twoHubsAnd(func(w *internet) { w.edge("a") }), func(t *testing.T, w *internet) {
		hub, hub2, a := w.node("hub"), w.node("hub2"), w.node("a")
		w.run(10 * time.Second)
		hub2.kill()
		c, err := a.agent.Netcheck(t.Context())
		if err != nil || c.NAT.Blocked || len(c.Hubs) != 2 || len(c.Servers) != 0 {
			t.Fatalf("%+v, %v", c, err)
		}
		for _, h := range c.Hubs {
			up := h.Key == hub.key
			if h.STUN.Answered != up || up && (h.STUN.RTT != 2*latency || h.MTU != 1408) {
				t.Errorf("%+v", h)
			}
		}
		// All are gone, and there is no time to wait for them.
		hub.kill()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if c, err = a.agent.Netcheck(ctx); err != nil || len(c.Hubs) != 2 || time.Since(begin) > 2*time.Second {
			t.Errorf("%+v, %v after %v", c, err, time.Since(begin))
		}
	})
}

// TestLookAhead asks a server of ours from a real socket, as is done before
// announcing candidates behind a NAT with a port step.
func TestLookAhead(t *testing.T) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	mapped := netip.MustParseAddrPort("203.0.113.9:1234")
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := server.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if out, ok := new(stun.Server).Answer(nil, b[:n], mapped, time.Now()); ok {
				_, _ = server.WriteToUDPAddrPort(out, from)
			}
		}
	}()
	silent, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	v6 := netip.MustParseAddrPort("[2001:db8::1]:1")
	for _, tt := range []struct {
		name   string
		server *net.UDPConn
		refuse bool
		want   []netip.AddrPort
	}{
		{"answered", server, false, []netip.AddrPort{mapped, v6}},
		{"silent", silent, false, addrs("203.0.113.9:1000", "[2001:db8::1]:1")},
		{"no server", nil, false, addrs("203.0.113.9:1000", "[2001:db8::1]:1")},
		{"no socket", server, true, addrs("203.0.113.9:1000", "[2001:db8::1]:1")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAgent(t, newInternet(t).add(&node{name: "a"}))
			if !tt.refuse {
				a.cfg.Open = func(f func() error) error { return f() }
			}
			a.discovery.public = addrs("203.0.113.9:1000", "[2001:db8::1]:1")
			if tt.server != nil {
				a.discovery.asked = append(a.discovery.asked, v6, tt.server.LocalAddr().(*net.UDPAddr).AddrPort())
			}
			calls := 0
			a.lookAhead(func() { calls++ })
			for calls == 0 {
				(<-a.inbox.calls)()
			}
			a.readers.Wait()
			for len(a.inbox.calls) > 0 {
				(<-a.inbox.calls)()
			}
			if calls != 1 || !slices.Equal(a.discovery.public, tt.want) {
				t.Errorf("called %d times, public %v, want %v", calls, a.discovery.public, tt.want)
			}
		})
	}
}

// TestFurtherSockets runs a discovery with the sockets that it asks for.
func TestFurtherSockets(t *testing.T) {
	w := newInternet(t)
	n := w.add(&node{name: "a"})
	a := newAgent(t, n)
	a.cfg.Open = func(f func() error) error { return f() }
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	to := server.LocalAddr().(*net.UDPAddr).AddrPort()
	a.discovery.run = stun.NewDiscovery(stun.Config{Servers: []netip.AddrPort{to}})
	a.inbox.expect(stun.TxID{1}, flight{purpose: forSTUN, at: time.Now()})
	a.sendExtra(stun.Send{To: to, Data: stun.AppendRequest(nil, stun.TxID{1}, stun.RequestOptions{}), FromOther: true})
	a.sendExtra(stun.Send{To: to, Data: stun.AppendRequest(nil, stun.TxID{2}, stun.RequestOptions{}), FromOther: true})
	b := make([]byte, 1500)
	var from [2]netip.AddrPort
	for i := range from {
		if _, from[i], err = server.ReadFromUDPAddrPort(b); err != nil {
			t.Fatal(err)
		}
	}
	if from[0] != from[1] {
		t.Errorf("from %v and %v", from[0], from[1])
	}
	// What nobody waits for comes first, and is not handed on.
	for _, tx := range []stun.TxID{{2}, {1}} {
		out, ok := new(stun.Server).Answer(nil, stun.AppendRequest(nil, tx, stun.RequestOptions{}), from[0], time.Now())
		if !ok {
			t.Fatal("no answer")
		}
		if _, err := server.WriteToUDPAddrPort(out, from[0]); err != nil {
			t.Fatal(err)
		}
	}
	<-a.inbox.calls
	a.discovery.close()
	a.readers.Wait()
	if len(a.inbox.calls) != 0 || a.discovery.extra != [2]*net.UDPConn{} {
		t.Error("something is left")
	}
}
