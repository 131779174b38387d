//go:build linux

package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// DatapathEnv names the environment variable that makes Topology.Prepare start the
// gateway nodes' agents of all domains but the hubs' without a TUN and without
// privileges, when it is "netstack". Nothing else changes for a test, so that it can
// show that its subject does not depend on the TUN.
const DatapathEnv = "CORAX_DATAPATH"

// detourSOCKS is where an agent with a detour serves SOCKS5, on loopback; port maps
// follow.
const detourSOCKS = 19080

// detour is how programs of a node without a TUN, and its pods, reach other domains.
type detour struct {
	agent *Agent
	local []netip.Prefix // of the node's own domain

	mu   sync.Mutex
	maps map[netip.AddrPort]uint16
}

// Detour makes Dial of the agent's host, and of its pods, reach cluster addresses
// outside local by the agent's own entry points: TCP by SOCKS5, UDP by a port map for
// each destination. Pods in a namespace of their own could not do that; what a test
// sends for them leaves from the host.
func (a *Agent) Detour(local ...netip.Prefix) {
	a.Host.detour = &detour{agent: a, local: local, maps: make(map[netip.AddrPort]uint16)}
}

// Detoured reports whether what programs of the host send to other domains goes by the
// entry points of an agent, that of the node which the host is, or whose pod it is.
func (h *Host) Detoured() bool {
	if h.node != nil {
		h = h.node
	}
	return h.detour != nil
}

// PingBetween waits until pings pass between two pods of different domains. The other
// one sends them where nothing carries those of p: where it is Detoured.
func (p *Pod) PingBetween(ctx context.Context, to *Pod, v6 bool) error {
	if p.Detoured() {
		p, to = to, p
	}
	addr := to.IP
	if v6 {
		addr = to.IP6
	}
	_, err := p.PingUntil(ctx, addr, PingOptions{})
	return err
}

// LeftOut logs what a test cannot do where gateway nodes have no TUN; the table of the
// rootless suite has it beside the result.
func LeftOut(tb testing.TB, what string) {
	tb.Helper()
	tb.Log("left out: " + what)
}

// detourArgs are the further arguments of an agent with a detour.
func (a *Agent) detourArgs() []string {
	if a.Host.detour == nil || a.Host.detour.agent != a {
		return nil
	}
	return []string{"--datapath", "netstack", "--socks-addr", fmt.Sprint(detourSOCKS)}
}

// detourTo returns the detour from h to an address; nil: there is none.
func (h *Host) detourTo(to netip.Addr) *detour {
	node := h
	if h.node != nil {
		node = h.node
	}
	d := node.detour
	contains := func(p netip.Prefix) bool { return p.Contains(to.Unmap()) }
	if d == nil || slices.ContainsFunc(d.local, contains) || !slices.ContainsFunc(ClusterCIDRs(), contains) {
		return nil
	}
	return d
}

func (d *detour) dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	if strings.HasPrefix(network, "udp") {
		return d.dialUDP(ctx, network, to)
	}
	return d.agent.Host.DialSOCKS(ctx, netip.AddrPortFrom(loopback, detourSOCKS), to.String())
}

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// dialUDP connects to a port map, which it makes when there is none yet.
func (d *detour) dialUDP(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.agent.Host
	port, ok := d.maps[to]
	at := netip.AddrPortFrom(loopback, port)
	if !ok {
		at = netip.AddrPortFrom(loopback, detourSOCKS+1+uint16(len(d.maps)))
		if _, err := d.agent.Command(ctx, "forward", "add", fmt.Sprintf("udp/%s=%s", at, to)); err != nil {
			return nil, err
		}
		if err := poll(ctx, 5*time.Millisecond, func() error { return h.taken(at) }); err != nil {
			return nil, err
		}
		d.maps[to] = at.Port()
	}
	return h.dial(ctx, network, at.String())
}

// taken returns nil when a UDP port of the host is in use.
func (h *Host) taken(at netip.AddrPort) error {
	c, err := h.ListenUDP(at)
	if errors.Is(err, unix.EADDRINUSE) {
		return nil
	}
	if err == nil {
		_ = c.Close()
		err = fmt.Errorf("lab: nobody listens on %s of %s", at, h.Name)
	}
	return err
}

// DialName connects with a port of a name in the cluster's DNS, by the SOCKS5 server
// of the agent on h, which has a detour.
func (h *Host) DialName(ctx context.Context, name string, port uint16) (*net.TCPConn, error) {
	return h.DialSOCKS(ctx, netip.AddrPortFrom(loopback, detourSOCKS), fmt.Sprintf("%s:%d", name, port))
}

// DialSOCKS connects to HOST:PORT by a SOCKS5 server, from the host. A refusal is a
// [unix.Errno] where there is one for it.
func (h *Host) DialSOCKS(ctx context.Context, server netip.AddrPort, to string) (*net.TCPConn, error) {
	c, err := h.dial(ctx, "tcp", server.String())
	if err != nil {
		return nil, err
	}
	stop := deadline(ctx, c)
	err = connectSOCKS(c, to)
	stop()
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("lab: from %s by SOCKS5 to %s: %w", h.Name, to, contextual(ctx, err))
	}
	return c.(*net.TCPConn), nil
}

// connectSOCKS asks for a connection: RFC 1928.
func connectSOCKS(c io.ReadWriter, to string) error {
	host, port, err := net.SplitHostPort(to)
	if err != nil {
		return err
	}
	number, err := net.LookupPort("tcp", port)
	if err != nil {
		return err
	}
	ask := []byte{5, 1, 0, 5, 1, 0, 3, byte(len(host))}
	if a, err := netip.ParseAddr(host); err == nil {
		ask = append(ask[:6], map[bool]byte{true: 1, false: 4}[a.Is4()])
		ask = append(ask, a.AsSlice()...)
	} else {
		ask = append(ask, host...)
	}
	if _, err := c.Write(binary.BigEndian.AppendUint16(ask, uint16(number))); err != nil {
		return err
	}
	answer := make([]byte, 6)
	if _, err := io.ReadFull(c, answer); err != nil {
		return err
	}
	rest := 4 + 2
	if answer[5] == 4 {
		rest = 16 + 2
	}
	if _, err := io.ReadFull(c, make([]byte, rest)); err != nil {
		return err
	}
	switch answer[3] {
	case 0:
		return nil
	case 3:
		return unix.ENETUNREACH
	case 4:
		return unix.EHOSTUNREACH
	case 5:
		return unix.ECONNREFUSED
	default:
		return fmt.Errorf("refused with code %d", answer[3])
	}
}
