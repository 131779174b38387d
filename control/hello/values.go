package hello

import (
	"errors"
	"fmt"
	"net/netip"
	"unicode"
	"unicode/utf8"

	"corax/dataplane/key"
)

// The values as they are on the wire: maps with small integer keys, so that a
// later version can add some. Names are the last ten bytes of overlay addresses,
// empty for the zero key.

type wireSelf struct {
	Version  string `cbor:"1,keyasint,omitempty"`
	Gateway  string `cbor:"2,keyasint,omitempty"`
	Node     string `cbor:"3,keyasint,omitempty"`
	Hub      bool   `cbor:"4,keyasint,omitempty"`
	Draining bool   `cbor:"5,keyasint,omitempty"`
}

type wireCandidate struct {
	Kind uint8  `cbor:"1,keyasint,omitempty"`
	Addr []byte `cbor:"2,keyasint"` // 4 or 16 bytes, port
}

type wireCandidates struct {
	ProbeID   []byte          `cbor:"1,keyasint"`
	ProbeKey  []byte          `cbor:"2,keyasint"`
	Addrs     []wireCandidate `cbor:"3,keyasint,omitempty"`
	Mapping   uint8           `cbor:"4,keyasint,omitempty"`
	Filtering uint8           `cbor:"5,keyasint,omitempty"`
	PortStep  int16           `cbor:"6,keyasint,omitempty"`
	Blocked   bool            `cbor:"7,keyasint,omitempty"`
	Calls     uint32          `cbor:"8,keyasint,omitempty"`
	MTU       uint16          `cbor:"9,keyasint,omitempty"`
	Test      []byte          `cbor:"10,keyasint,omitempty"` // transaction, then an address
}

type wireWant struct {
	Peer   []byte `cbor:"1,keyasint"`
	Next   []byte `cbor:"2,keyasint,omitempty"`
	Origin []byte `cbor:"3,keyasint,omitempty"`
}

type wireLabel struct {
	Peer   []byte   `cbor:"1,keyasint"`
	Label  uint64   `cbor:"2,keyasint"`
	Cost   uint32   `cbor:"3,keyasint,omitempty"`
	Via    [][]byte `cbor:"4,keyasint,omitempty"`
	Origin []byte   `cbor:"5,keyasint,omitempty"`
}

type wireRelay struct {
	Wanted []wireWant  `cbor:"1,keyasint,omitempty"`
	Labels []wireLabel `cbor:"2,keyasint,omitempty"`
}

type wireLink struct {
	To     []byte `cbor:"1,keyasint"`
	Micros uint32 `cbor:"2,keyasint,omitempty"`
	Hub    bool   `cbor:"3,keyasint,omitempty"`
}

type wireCosts struct {
	Links []wireLink `cbor:"1,keyasint,omitempty"`
}

type wireClaims struct {
	Epoch   uint64   `cbor:"1,keyasint,omitempty"`
	Gateway string   `cbor:"3,keyasint,omitempty"`
	Active  []string `cbor:"4,keyasint,omitempty"`
}

type wireDomain struct {
	Gateway string   `cbor:"1,keyasint,omitempty"`
	Node    string   `cbor:"2,keyasint,omitempty"`
	Ask     bool     `cbor:"3,keyasint,omitempty"`
	Listed  bool     `cbor:"4,keyasint,omitempty"`
	Epoch   uint64   `cbor:"5,keyasint,omitempty"`
	Active  []string `cbor:"6,keyasint,omitempty"`
}

// nameSize is the length of a name: an overlay address without its /48.
const nameSize = 10

func appendName(k key.Public) []byte {
	if k.IsZero() {
		return nil
	}
	a := k.Overlay().As16()
	return a[16-nameSize:]
}

func nameAddr(b []byte) netip.Addr {
	a := key.OverlayPrefix.Addr().As16()
	copy(a[16-nameSize:], b)
	return netip.AddrFrom16(a)
}

var errName = errors.New("a name has not 10 bytes")

// names resolves the names of one value, and counts.
type names struct {
	resolve func(overlay netip.Addr) (key.Public, bool)
	unknown int // entries that name somebody whom nobody knows
	refused int // entries with an address that cannot be used
	err     error
}

// key resolves a name that may be empty; ok is false when the entry that it is
// in must be left out.
func (n *names) key(b []byte, ok *bool) key.Public {
	switch {
	case len(b) == 0:
		return key.Public{}
	case len(b) != nameSize:
		n.err, *ok = errName, false
		return key.Public{}
	}
	k, known := n.resolve(nameAddr(b))
	if !known && *ok {
		n.unknown++
		*ok = false
	}
	return k
}

func validText(s string) error {
	if len(s) > MaxText {
		return fmt.Errorf("text of %d bytes: %w", len(s), errSize)
	}
	if !utf8.ValidString(s) {
		return errForm
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return errForm
		}
	}
	return nil
}

func validCandidate(a netip.AddrPort) bool {
	ip := a.Addr()
	return ip.IsValid() && a.Port() != 0 && !ip.Is4In6() && ip.Zone() == "" &&
		!ip.IsMulticast() && !ip.IsLoopback() && !ip.IsUnspecified() &&
		!ip.IsLinkLocalUnicast() && ip != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func appendAddrPort(a netip.AddrPort) []byte {
	return append(a.Addr().AsSlice(), byte(a.Port()>>8), byte(a.Port()))
}

func addrPort(b []byte) (netip.AddrPort, bool) {
	if len(b) < 2 {
		return netip.AddrPort{}, false
	}
	n := len(b) - 2
	ip, ok := netip.AddrFromSlice(b[:n])
	a := netip.AddrPortFrom(ip, uint16(b[n])<<8|uint16(b[n+1]))
	return a, ok && validCandidate(a)
}
