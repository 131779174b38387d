package portmaptest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// The well-known ports, which the fake really uses.
const (
	serverPort = 5351
	ssdpPort   = 1900
)

// Config says what a router is like. The zero value speaks nothing.
type Config struct {
	// Addr is the router's address; zero: a free one in 127.0.0.0/8.
	Addr netip.Addr
	// External is the address on the other side; zero: 203.0.113.1.
	External netip.Addr
	// PCP, NATPMP and UPnP say what it speaks. With neither PCP nor NATPMP
	// the port is closed.
	PCP, NATPMP, UPnP bool
	// Epoch is the seconds since the router started; zero: 1000.
	Epoch uint32
	// IGD says how the UPnP device behaves.
	IGD IGD
}

// Mapping is one mapping that the router made.
type Mapping struct {
	Protocol    string // "PCP", "NAT-PMP" or "UPnP"
	Internal    netip.AddrPort
	External    uint16
	Nonce       [12]byte // of PCP
	Lifetime    uint32   // seconds, as granted; 0: without end (UPnP)
	Description string   // of UPnP
}

// Gateway is the fake router. Its methods may be called by any goroutine.
type Gateway struct {
	addr netip.Addr
	udp  *net.UDPConn // nil: closed
	ssdp *net.UDPConn // nil: no UPnP
	http net.Listener

	mu       sync.Mutex
	cfg      Config
	fault    Fault
	epoch    uint32
	since    time.Time
	mappings []Mapping
	requests map[string]int
}

// Fault changes the answers over UDP 5351. The zero value changes none.
type Fault struct {
	// Silent answers nothing.
	Silent bool
	// PCPResult and PMPResult, when not 0, refuse every mapping with that code.
	PCPResult uint8
	PMPResult uint16
	// ErrorLifetime is what a PCP refusal says of how long it lasts, seconds.
	ErrorLifetime uint32
	// Lifetime caps what is granted, seconds; zero: what was asked for.
	Lifetime uint32
	// Before, when not nil, returns packets to send before the right answer.
	Before func(req, resp []byte) [][]byte
	// Instead, when not nil, returns packets to send in place of the answer.
	Instead func(req, resp []byte) [][]byte
}

// New opens the router's sockets.
func New(cfg Config) (*Gateway, error) {
	if !cfg.External.IsValid() {
		cfg.External = netip.AddrFrom4([4]byte{203, 0, 113, 1})
	}
	if cfg.Epoch == 0 {
		cfg.Epoch = 1000
	}
	g := &Gateway{cfg: cfg, epoch: cfg.Epoch, since: time.Now(), requests: make(map[string]int)}
	if cfg.Addr.IsValid() {
		return g, g.listen(cfg.Addr)
	}
	var err error
	for range 20 {
		a := netip.AddrFrom4([4]byte{127, byte(1 + rand.N(250)), byte(rand.N(256)), byte(1 + rand.N(250))})
		if err = g.listen(a); err == nil {
			return g, nil
		}
	}
	return nil, err
}

func (g *Gateway) listen(a netip.Addr) (err error) {
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	g.addr = a
	if g.cfg.PCP || g.cfg.NATPMP {
		if g.udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, serverPort))); err != nil {
			return fmt.Errorf("portmaptest: %w", err)
		}
	}
	if !g.cfg.UPnP {
		return nil
	}
	if g.ssdp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, ssdpPort))); err != nil {
		return fmt.Errorf("portmaptest: %w", err)
	}
	if g.http, err = net.Listen("tcp", netip.AddrPortFrom(a, 0).String()); err != nil {
		return fmt.Errorf("portmaptest: %w", err)
	}
	return nil
}

func (g *Gateway) close() {
	if g.udp != nil {
		g.udp.Close()
	}
	if g.ssdp != nil {
		g.ssdp.Close()
	}
	if g.http != nil {
		g.http.Close()
	}
	g.udp, g.ssdp, g.http = nil, nil, nil
}

// Run answers until ctx ends, then closes the sockets.
func (g *Gateway) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	if g.udp != nil {
		wg.Go(func() { serve(g.udp, g.answerUDP) })
	}
	if g.ssdp != nil {
		wg.Go(func() { serve(g.ssdp, g.answerSSDP) })
		s := &http.Server{Handler: http.HandlerFunc(g.serveHTTP), ReadHeaderTimeout: 5 * time.Second}
		wg.Go(func() { _ = s.Serve(g.http) })
		defer s.Close()
	}
	<-ctx.Done()
	for _, c := range []*net.UDPConn{g.udp, g.ssdp} {
		if c != nil {
			c.Close()
		}
	}
	if g.http != nil {
		g.http.Close()
	}
	wg.Wait()
	return nil
}

// serve answers packets until the socket is closed.
func serve(c *net.UDPConn, answer func(req []byte, from netip.AddrPort) [][]byte) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an answer before
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		for _, b := range answer(buf[:n], from) {
			_, _ = c.WriteToUDPAddrPort(b, from)
		}
	}
}

// Addr returns the router's address, for Config.Gateways of a client.
func (g *Gateway) Addr() netip.Addr { return g.addr }

// Mappings returns the mappings that the router has now, oldest first.
func (g *Gateway) Mappings() []Mapping {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.mappings)
}

// Requests returns how many requests of a kind came: "announce", "pcp map",
// "external", "pmp map", "search", "description", or the name of a SOAP action.
func (g *Gateway) Requests(kind string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.requests[kind]
}

// SetFault changes the answers from now on.
func (g *Gateway) SetFault(f Fault) { g.change(func() { g.fault = f }) }

// SetIGD changes the UPnP device from now on.
func (g *Gateway) SetIGD(d IGD) { g.change(func() { g.cfg.IGD = d }) }

// SetExternal changes the external address.
func (g *Gateway) SetExternal(a netip.Addr) { g.change(func() { g.cfg.External = a }) }

// Reboot forgets all mappings and starts the epoch anew.
func (g *Gateway) Reboot() {
	g.change(func() { g.mappings, g.epoch, g.since = nil, 0, time.Now() })
}

// Occupy gives an external port to another host.
func (g *Gateway) Occupy(port uint16) {
	g.change(func() {
		g.mappings = append(g.mappings, Mapping{Protocol: "UPnP", Internal: netip.MustParseAddrPort("127.99.99.99:9"), External: port})
	})
}

func (g *Gateway) change(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
}

func (g *Gateway) now() uint32 { return g.epoch + uint32(time.Since(g.since)/time.Second) }

// grantLocked makes or renews a mapping and returns it; false: the internal port
// is mapped under another nonce.
func (g *Gateway) grantLocked(m Mapping) (Mapping, bool) {
	for i, old := range g.mappings {
		if old.Internal == m.Internal {
			if old.Protocol == "PCP" && m.Protocol == "PCP" && old.Nonce != m.Nonce {
				return Mapping{}, false
			}
			m.External = old.External
			g.mappings[i] = m
			return m, true
		}
	}
	for m.External == 0 || g.takenLocked(m.External) {
		m.External++
	}
	g.mappings = append(g.mappings, m)
	return m, true
}

func (g *Gateway) takenLocked(port uint16) bool {
	return slices.ContainsFunc(g.mappings, func(m Mapping) bool { return m.External == port })
}

func (g *Gateway) deleteLocked(match func(Mapping) bool) bool {
	n := len(g.mappings)
	g.mappings = slices.DeleteFunc(g.mappings, match)
	return len(g.mappings) < n
}
