package portmap

import (
	"net/netip"
	"time"
)

// Status is a snapshot of both families.
type Status struct{ IPv4, IPv6 FamilyStatus }

// FamilyStatus is a snapshot of one family's mapping.
type FamilyStatus struct {
	Wanted   bool
	Protocol Protocol // None: no mapping
	Gateway  netip.Addr
	// Internal is what the router forwards to, External what it forwards from.
	Internal, External netip.AddrPort
	// DoubleNAT says that External is no public address, so that there is
	// another NAT in front of the router; the mapping is not offered to peers.
	DoubleNAT bool
	Expires   time.Time // zero: no mapping
	Next      time.Time // when the router is asked again; zero: not planned
	Failures  int       // tries without success since the last success
	Reboots   uint64    // of the router, seen by its epoch
	Err       error     // of the last try; nil: it went well, or there was none
}

// String says in words how things are.
func (s FamilyStatus) String() string {
	switch {
	case !s.Wanted:
		return "not wanted"
	case s.Protocol != None && s.DoubleNAT:
		return s.Protocol.String() + " maps " + s.External.String() + ", which is no public address: there is another NAT in front of the router"
	case s.Protocol != None && s.Err != nil:
		return s.Protocol.String() + " maps " + s.External.String() + "; not renewed: " + s.Err.Error()
	case s.Protocol != None:
		return s.Protocol.String() + " maps " + s.External.String()
	case s.Err != nil:
		return oneLine(s.Err)
	default:
		return "not asked yet"
	}
}

func (m *machine) status() FamilyStatus {
	return FamilyStatus{
		Wanted:    m.wanted,
		Protocol:  m.have.proto,
		Gateway:   m.have.gateway,
		Internal:  m.have.internal,
		External:  m.have.external,
		DoubleNAT: m.have.proto != None && !public(m.have.external.Addr()),
		Expires:   m.expires,
		Next:      m.deadline(),
		Failures:  m.failures,
		Reboots:   m.reboots,
		Err:       m.err,
	}
}
