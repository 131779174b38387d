package stun

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Mapping is how a NAT maps one inside address and port when it sends to several
// destinations (RFC 4787 section 4.1). The numbers are part of the hello.
type Mapping uint8

// The mapping behaviours.
const (
	MappingUnknown                 Mapping = iota
	MappingNone                            // no NAT: the servers see our own address and port
	MappingEndpointIndependent             // one mapping for all destinations
	MappingAddressDependent                // one mapping for each destination address
	MappingAddressAndPortDependent         // one mapping for each destination address and port
)

// String returns the name that RFC 4787 gives.
func (m Mapping) String() string {
	switch m {
	case MappingNone:
		return "no NAT"
	case MappingEndpointIndependent:
		return "endpoint-independent mapping"
	case MappingAddressDependent:
		return "address-dependent mapping"
	case MappingAddressAndPortDependent:
		return "address and port-dependent mapping"
	default:
		return "unknown mapping"
	}
}

// dependent reports whether there is a mapping per destination.
func (m Mapping) dependent() bool { return m >= MappingAddressDependent }

// Filtering is which packets from outside a NAT or firewall lets in to a mapping
// (RFC 4787 section 5). The numbers are part of the hello.
type Filtering uint8

// The filtering behaviours.
const (
	FilteringUnknown                 Filtering = iota
	FilteringEndpointIndependent               // everything
	FilteringAddressDependent                  // what comes from an address that we sent to
	FilteringAddressAndPortDependent           // what comes from an address and port that we sent to
)

// String returns the name that RFC 4787 gives.
func (f Filtering) String() string {
	switch f {
	case FilteringEndpointIndependent:
		return "endpoint-independent filtering"
	case FilteringAddressDependent:
		return "address-dependent filtering"
	case FilteringAddressAndPortDependent:
		return "address and port-dependent filtering"
	default:
		return "unknown filtering"
	}
}

// Tri is a yes or no that may not be known; the zero value is [Unknown].
type Tri uint8

// The values of a Tri.
const (
	Unknown Tri = iota
	No
	Yes
)

// String returns "unknown", "no" or "yes".
func (t Tri) String() string {
	switch t {
	case No:
		return "no"
	case Yes:
		return "yes"
	default:
		return "unknown"
	}
}

// Report is what is known of the way to the Internet. The embedded Family is the
// one that matters most: IPv4 when a server answered over it, else IPv6; its
// Public and Servers, and Blocked, are those of both families.
type Report struct {
	Family
	V4, V6 Family
}

// Family is what is known of one IP version.
type Family struct {
	Mapping   Mapping
	Filtering Filtering
	// Public are the addresses that the servers saw of the tunnel socket, each
	// once: our server reflexive candidates.
	Public []netip.AddrPort
	// PortPreserved says that all servers saw the port that the socket has.
	PortPreserved bool
	// PortStep is the difference between the ports of successive mappings of a NAT
	// that makes one per destination, when it can be predicted; it may be negative.
	// Zero: not predictable, or not needed.
	PortStep int
	// Lifetime is the longest time without packets that a mapping was seen to
	// survive. Zero: not known.
	Lifetime time.Duration
	// Hairpin says whether the NAT sends back inside what goes to a mapped address.
	Hairpin Tri
	// Blocked says that servers were asked and none answered in time.
	Blocked bool
	// Servers are the servers that were asked, in the order given.
	Servers []ServerReport
}

// ServerReport is what one server said.
type ServerReport struct {
	Addr     netip.AddrPort
	Answered bool
	// RTT is the round-trip time; when the request had to be repeated it is the
	// time since the first one, an upper bound.
	RTT    time.Duration
	Mapped netip.AddrPort // what it saw of the tunnel socket
}

// String says in one line what is known, with the names of RFC 4787.
func (f *Family) String() string {
	if f.Blocked {
		return "UDP blocked"
	}
	words := []string{f.Mapping.String(), f.Filtering.String()}
	if f.Mapping > MappingNone {
		switch {
		case f.PortPreserved:
			words = append(words, "port preservation")
		case f.PortStep != 0:
			words = append(words, fmt.Sprintf("ports in steps of %+d", f.PortStep))
		case f.Mapping.dependent():
			words = append(words, "ports not predictable")
		}
		if f.Hairpin == Yes {
			words = append(words, "hairpinning")
		} else if f.Hairpin == No {
			words = append(words, "no hairpinning")
		}
		if f.Lifetime != 0 {
			words = append(words, fmt.Sprintf("mappings live %v or longer", f.Lifetime))
		}
	}
	return strings.Join(words, ", ")
}

// SetFiltering completes the report of the family that matters most where the
// servers could not tell the filtering behaviour.
func (r *Report) SetFiltering(found Filtering) {
	f := &r.V4
	if r.About6() {
		f = &r.V6
	}
	if f.Filtering == FilteringUnknown {
		f.Filtering, r.Filtering = found, found
	}
}

// About6 reports whether IPv6 is the family that matters most.
func (r *Report) About6() bool { return !r.V4.answered() && r.V6.answered() }

func (f *Family) answered() bool {
	for _, s := range f.Servers {
		if s.Answered {
			return true
		}
	}
	return false
}

// summary sets the embedded family from V4 and V6.
func (r *Report) summary() {
	r.Family = r.V4
	if r.About6() {
		r.Family = r.V6
	}
	r.Public = append(append([]netip.AddrPort(nil), r.V4.Public...), r.V6.Public...)
	r.Servers = append(append([]ServerReport(nil), r.V4.Servers...), r.V6.Servers...)
	r.Blocked = len(r.Servers) > 0 &&
		(r.V4.Blocked || len(r.V4.Servers) == 0) && (r.V6.Blocked || len(r.V6.Servers) == 0)
}
