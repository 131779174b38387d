package front

import (
	"net/netip"
)

// Plan is what a Front serves: where it listens, and for which nodes. The zero Plan
// listens nowhere.
type Plan struct {
	TLS     []TLSListener
	HTTP    []netip.AddrPort // moved to loopback while there is no Auth
	Connect []netip.AddrPort // mTLS
	// ConnectSocket is the path of a unix socket for CONNECT, whose owner may use
	// it; empty: none.
	ConnectSocket string
	Nodes         []Node
	// End ends the open streams, too: proxy mode is switched off. Otherwise streams
	// outlive the listener that they came by.
	End bool
}

// TLSListener is a port for TLS.
type TLSListener struct {
	Addr netip.AddrPort
	// Port is that of the node: of all streams that are passed through, and of
	// requests whose Host names none.
	Port uint16
}

// Node is one that may be asked for.
type Node struct {
	Name string
	// IP is looked up when a host is an address; the zero Addr: it has none.
	IP netip.Addr
	// Ports are those that may be asked for.
	Ports []uint16
	// PlainPorts and TLSPorts are those that speak HTTP and HTTPS. One that is in
	// both or in neither speaks what the front speaks at which it is asked for. 10250
	// is always HTTPS and 10255 HTTP.
	PlainPorts, TLSPorts []uint16
}

// Listener is a listener as it is now, for status.
type Listener struct {
	Front string // tls, http or connect
	Addr  string // as it listens; as wanted when it does not
	Err   error  // why it does not listen
}

// The kinds of fronts, as counters, audit lines and status call them.
const (
	kindTLS     = "tls"
	kindHTTP    = "http"
	kindConnect = "connect"
)

// wanted is a listener that a plan asks for. Port is not part of its identity.
type wanted struct {
	kind    string
	network string
	addr    string
	port    uint16
}

type socketKey struct{ kind, network, addr string }

func (w wanted) key() socketKey { return socketKey{w.kind, w.network, w.addr} }

// wants returns the listeners of a plan. Without authentication plain HTTP stays on
// loopback.
func (p Plan) wants(authenticated bool) []wanted {
	var all []wanted
	for _, l := range p.TLS {
		all = append(all, wanted{kindTLS, "tcp", l.Addr.String(), l.Port})
	}
	for _, a := range p.HTTP {
		if !authenticated && !a.Addr().IsLoopback() {
			a = netip.AddrPortFrom(loopback(a.Addr()), a.Port())
		}
		all = append(all, wanted{kindHTTP, "tcp", a.String(), 0})
	}
	for _, a := range p.Connect {
		all = append(all, wanted{kindConnect, "tcp", a.String(), 0})
	}
	if p.ConnectSocket != "" {
		all = append(all, wanted{kindConnect, "unix", p.ConnectSocket, 0})
	}
	return all
}

func loopback(a netip.Addr) netip.Addr {
	if a.Is4() || a.Is4In6() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}
