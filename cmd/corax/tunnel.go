package main

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/sync/errgroup"

	"corax/dataplane"
	"corax/dataplane/fabric"
	"corax/dataplane/hostnet"
	"corax/dataplane/key"
	"corax/dataplane/wg"
	"corax/nat"
	"corax/nat/relay"
	"corax/nat/stream"
)

// tunnel is the WireGuard device and the agent that finds the paths to its
// peers: they come and go together.
type tunnel struct {
	*wg.Device
	nat *nat.Agent
}

// openTunnel opens the tunnel port.
func (a *agent) openTunnel(mtu int) (*tunnel, error) {
	conn := a.hello.open()
	t := new(tunnel)
	var err error
	t.nat, err = nat.New(nat.Config{
		Log: a.log, Private: a.private, Conn: conn, Port: a.cfg.TunnelPort,
		Prefixes: a.ownPrefixes, Gateways: hostnet.DefaultRouters, STUN: a.stunServers,
		Changed: a.inbox.poke, Allowed: a.allowed, Claimed: a.book.heard, Heard: a.heardKey,
		Listen: func() (net.Listener, error) {
			return net.Listen("tcp", ":"+strconv.Itoa(int(a.cfg.TLSPort)))
		},
	})
	if err == nil {
		t.Device, err = wg.New(wg.Config{
			Log:        a.log,
			Name:       a.cfg.TUNName,
			PrivateKey: a.private,
			Port:       a.cfg.TunnelPort,
			MTU:        mtu,
			UAPI:       a.cfg.UAPI,
			Receive:    a.fabric.From(fabric.FromWireGuard),
			Other:      func(d wg.Datagram) { t.nat.Receive(datagramOf(d)) },
			Wanted:     t.nat.Wanted,
			Proven:     func(k key.Public, p wg.Path) { t.nat.Proven(k, pathOf(p)) },
			Bounds:     a.profile.bounds,
		})
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	t.SetAllow(a.allow.Load())
	return t, nil
}

// Run works until ctx is done or the device ends.
func (t *tunnel) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return t.Device.Run(ctx) })
	g.Go(func() error { return t.nat.Run(ctx, natTunnel{t.Device}) })
	return g.Wait()
}

// ownPrefixes are the addresses of this host for what peers may be told of them.
func (a *agent) ownPrefixes() []netip.Prefix {
	all, err := hostnet.Prefixes(a.cfg.TUNName)
	if err != nil {
		a.log.Error("cannot list the addresses of this host", "err", err)
	}
	return all
}

// stunServers are the configured servers whose address is known.
func (a *agent) stunServers() []netip.AddrPort {
	var out []netip.AddrPort
	for _, s := range a.cfg.STUNServers {
		addr, err := netip.ParseAddr(s.Host)
		if err != nil {
			addr, _ = a.resolver.Addr(s.Host) // an error is a problem, see resolve
		}
		if addr.IsValid() {
			out = append(out, netip.AddrPortFrom(addr, s.Port))
		}
	}
	return out
}

// natPlan is what the agent of the paths must know of a plan.
func (a *agent) natPlan(c dataplane.Config) nat.Plan {
	p := nat.Plan{
		Self: nat.Self{
			Gateway: c.Self.Gateway, Node: c.Self.Node, Version: versionText(), Hub: c.Self.Hub, Relay: c.Self.Relay,
		},
		Forbidden: c.Forbidden, MaxMTU: c.Self.MTU, Peers: make([]nat.Peer, 0, len(c.Peers)),
	}
	over := map[netip.Addr]bool{}
	for _, r := range c.Routes {
		if r.Via == dataplane.ViaWireGuard && r.Prefix.IsSingleIP() {
			over[r.Prefix.Addr()] = true
		}
	}
	twin := twins(c.Peers)
	for _, x := range c.Peers {
		n := nat.Peer{
			Twin: twin[[2]string{x.Gateway, x.Node}],
			Key:  x.PublicKey, Gateway: x.Gateway, Node: x.Node, Hub: x.Hub, Relay: x.Relay, Cost: x.Cost,
			Endpoint: x.Endpoint, Proven: a.loop.memory.Proven[x.PublicKey], SameDomain: x.SameDomain,
			Keep:  x.Keepalive > 0 || c.Self.Hub && x.Hub && !x.SameDomain && firstKey(a.public, x.PublicKey),
			Hello: over[x.PublicKey.Overlay()],
		}
		if x.TLSPort != 0 {
			host := x.EndpointHost
			if host == "" && x.Endpoint.IsValid() {
				host = x.Endpoint.Addr().String()
			}
			if host != "" {
				n.TLS = net.JoinHostPort(host, strconv.Itoa(int(x.TLSPort)))
			}
		}
		p.Peers = append(p.Peers, n)
	}
	return p
}

// firstKey reports whether a is the lower key. Of two hubs it chooses the path:
// relay frames are taken only from where the other hub is reached, so both must
// use the same one.
func firstKey(a, b key.Public) bool { return slices.Compare(a[:], b[:]) < 0 }

// natTunnel is the device as package nat sees it.
type natTunnel struct{ dev *wg.Device }

var _ nat.Tunnel = natTunnel{}

func wgPath(p nat.Path) wg.Path {
	w := wg.Path{To: p.To, Local: p.Local, Socket: wg.Socket(p.Socket), Via: p.Via, Label: wg.Label(p.Label)}
	if p.Stream != nil { // a nil pointer in an interface is no nil interface
		w.Stream = p.Stream
	}
	return w
}

func pathOf(p wg.Path) nat.Path {
	n := nat.Path{To: p.To, Local: p.Local, Socket: uint32(p.Socket), Via: p.Via, Label: uint64(p.Label)}
	n.Stream, _ = p.Stream.(*stream.Conn)
	return n
}

func datagramOf(d wg.Datagram) nat.Datagram {
	n := nat.Datagram{
		From: d.From, Local: d.Local, Socket: uint32(d.Socket), Peer: d.Peer, Via: d.Via, Label: uint64(d.Label), Data: d.Data,
	}
	n.Stream, _ = d.Stream.(*stream.Conn)
	return n
}

func (t natTunnel) SetPath(k key.Public, p nat.Path, pin bool) { t.dev.SetPath(k, wgPath(p), pin) }

func (t natTunnel) SetLabels(labels map[uint64]relay.Forward) {
	all := make(map[wg.Label]wg.Forward, len(labels))
	for l, f := range labels {
		all[wg.Label(l)] = wg.Forward{From: f.From, To: f.To, Out: wg.Label(f.Out)}
	}
	t.dev.SetLabels(all)
}

func (t natTunnel) SendRaw(batch []nat.Raw) []nat.SendError {
	raw := make([]wg.Raw, len(batch))
	for i, r := range batch {
		raw[i] = wg.Raw{Path: wgPath(r.Path), Data: r.Data, TTL: r.TTL, DF: r.DF}
	}
	var out []nat.SendError
	for _, e := range t.dev.SendRaw(raw) {
		out = append(out, nat.SendError(e))
	}
	return out
}

func (t natTunnel) OpenSockets(n int, v6 bool) ([]uint32, error) {
	sockets, err := t.dev.OpenSockets(n, v6)
	out := make([]uint32, len(sockets))
	for i, s := range sockets {
		out[i] = uint32(s)
	}
	return out, err
}

func (t natTunnel) CloseSockets(keep ...uint32) {
	all := make([]wg.Socket, len(keep))
	for i, s := range keep {
		all[i] = wg.Socket(s)
	}
	t.dev.CloseSockets(all...)
}

func (t natTunnel) Activity(k key.Public) (nat.Activity, bool) {
	x, ok := t.dev.Activity(k)
	return nat.Activity{Sent: x.Sent, Received: x.Received, Path: pathOf(x.Path), Heard: x.Heard}, ok
}

func (t natTunnel) Handshake(k key.Public) bool { return t.dev.Handshake(k) }

func (t natTunnel) Inject(k key.Public, s *stream.Conn, datagrams [][]byte) {
	t.dev.Inject(k, s, datagrams)
}

func (t natTunnel) EndStream(s *stream.Conn) { t.dev.EndStream(s) }
