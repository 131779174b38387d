package portmap

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Protocol is how a mapping was made.
type Protocol uint8

// The protocols, best first after the zero value, which means none.
const (
	None Protocol = iota
	PCP
	NATPMP
	UPnP
)

// String returns the name as status shows it.
func (p Protocol) String() string {
	switch p {
	case PCP:
		return "PCP"
	case NATPMP:
		return "NAT-PMP"
	case UPnP:
		return "UPnP IGD"
	default:
		return "none"
	}
}

// The reasons why there is no mapping that a caller may want to tell apart.
var (
	// ErrNoGateway means that this host has no default router.
	ErrNoGateway = errors.New("no default router")
	// ErrSilent means that the router did not answer in time.
	ErrSilent = errors.New("no answer")
	// ErrNotSpoken means that the router said, one way or other, that it does
	// not speak the protocol.
	ErrNotSpoken = errors.New("not spoken")
)

// RefusedError is a router's refusal.
type RefusedError struct {
	Protocol Protocol
	// Code is the result code of RFC 6887 section 7.4 or RFC 6886 section 3.5,
	// or the UPnP error code.
	Code int
	Text string
	// Lasts is how long the router says that it will answer the same; zero
	// when it does not say.
	Lasts time.Duration
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("refused: %s (code %d)", e.Text, e.Code)
}

// grant is a mapping as the router made it.
type grant struct {
	proto   Protocol
	gateway netip.Addr
	// internal is our address and port as the router knows them.
	internal netip.AddrPort
	external netip.AddrPort
	// lifetime is zero for a mapping without end (some IGDs know no other).
	lifetime time.Duration
	epoch    uint32 // of PCP and NAT-PMP
	igd      *igd   // of UPnP
}

// ask is what we want to have mapped.
type ask struct {
	internal uint16
	external uint16 // the port that we would like, or had; never zero
}

// public reports whether an address of the router is worth telling to a peer
// elsewhere. A private or shared one (RFC 1918, RFC 6598, RFC 6333) means that
// there is another NAT in front.
func public(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	if a.Is6() {
		return a.As16()[0]>>5 == 1 // 2000::/3
	}
	b := a.As4()
	switch {
	case b[0] == 0, b[0] >= 224:
		return false
	case b[0] == 100 && b[1]>>6 == 1: // 100.64.0.0/10
		return false
	case b[0] == 192 && b[1] == 0 && b[2] == 0: // 192.0.0.0/24
		return false
	case b[0] == 198 && b[1]>>1 == 9: // 198.18.0.0/15
		return false
	}
	return true
}
