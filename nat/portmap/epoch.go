package portmap

import (
	"net/netip"
	"time"
)

// epoch follows a router's clock of seconds since it lost its mappings. The zero
// value has seen nothing.
type epoch struct {
	proto  Protocol
	router netip.Addr
	server uint32
	at     time.Time
}

// see takes the epoch of an answer and reports whether the router lost its
// mappings since the one before.
func (e *epoch) see(now time.Time, proto Protocol, router netip.Addr, server uint32) (lost bool) {
	lost = e.lost(now, proto, router, server)
	*e = epoch{proto, router, server, now}
	return lost
}

// lost is see without taking note.
func (e *epoch) lost(now time.Time, proto Protocol, router netip.Addr, server uint32) bool {
	if e.at.IsZero() || e.proto != proto || e.router != router {
		return false
	}
	client := int64(now.Sub(e.at) / time.Second)
	if proto == NATPMP { // RFC 6886 section 3.6
		return int64(server)+2 < int64(e.server)+client*7/8
	}
	delta := int64(server) - int64(e.server) // RFC 6887 section 8.5
	return delta < -1 || client+2 < delta-delta/16 || delta+2 < client-client/16
}
