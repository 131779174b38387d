package portmap

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// RFC 6886 section 3.
const (
	pmpVersion  = 0
	pmpExternal = 0
	pmpMapUDP   = 1
	pmpResponse = 0x80
)

// pmpResult is a result code of RFC 6886 section 3.5.
type pmpResult uint16

const (
	pmpSuccess pmpResult = iota
	pmpUnsuppVersion
	pmpNotAuthorized
	pmpNetworkFailure
	pmpOutOfResources
	pmpUnsuppOpcode
)

func (r pmpResult) String() string {
	switch r {
	case pmpSuccess:
		return "success"
	case pmpUnsuppVersion:
		return "version not supported"
	case pmpNotAuthorized:
		return "not authorized, port mapping may be switched off"
	case pmpNetworkFailure:
		return "the router has no external network"
	case pmpOutOfResources:
		return "the router is out of resources"
	case pmpUnsuppOpcode:
		return "opcode not supported"
	default:
		return "unknown result"
	}
}

func appendPMPExternal(b []byte) []byte { return append(b, pmpVersion, pmpExternal) }

// appendPMPMap asks for a UDP mapping; lifetime in seconds, zero deletes.
func appendPMPMap(b []byte, internal, external uint16, lifetime uint32) []byte {
	b = append(b, pmpVersion, pmpMapUDP, 0, 0)
	b = binary.BigEndian.AppendUint16(b, internal)
	b = binary.BigEndian.AppendUint16(b, external)
	return binary.BigEndian.AppendUint32(b, lifetime)
}

// pmpAnswer is a response. address is that of opcode 0, the rest that of a
// mapping.
type pmpAnswer struct {
	opcode  uint8
	result  pmpResult
	epoch   uint32 // seconds
	address netip.Addr

	internal uint16
	external uint16
	lifetime time.Duration
}

func parsePMP(b []byte) (pmpAnswer, dropReason) {
	switch {
	case len(b) < 4:
		return pmpAnswer{}, dropShort
	case b[0] != pmpVersion:
		return pmpAnswer{}, dropVersion
	case b[1]&pmpResponse == 0:
		return pmpAnswer{}, dropNotResponse
	case len(b) < 8:
		return pmpAnswer{}, dropShort
	}
	a := pmpAnswer{
		opcode: b[1] &^ pmpResponse,
		result: pmpResult(binary.BigEndian.Uint16(b[2:])),
		epoch:  binary.BigEndian.Uint32(b[4:]),
	}
	if a.result != pmpSuccess {
		return a, dropNot // the rest may be missing, and means nothing
	}
	switch a.opcode {
	case pmpExternal:
		if len(b) < 12 {
			return pmpAnswer{}, dropShort
		}
		a.address = netip.AddrFrom4([4]byte(b[8:12]))
	case pmpMapUDP:
		if len(b) < 16 {
			return pmpAnswer{}, dropShort
		}
		a.internal = binary.BigEndian.Uint16(b[8:])
		a.external = binary.BigEndian.Uint16(b[10:])
		a.lifetime = time.Duration(binary.BigEndian.Uint32(b[12:])) * time.Second
	default:
		return pmpAnswer{}, dropMismatch
	}
	return a, dropNot
}

// answers says why the response is none to a request with that opcode and
// internal port; dropNot when it is.
func (a pmpAnswer) answers(opcode uint8, internal uint16) dropReason {
	if a.opcode != opcode || a.result == pmpSuccess && opcode == pmpMapUDP && a.internal != internal {
		return dropMismatch
	}
	return dropNot
}

// refusal is the error of the result; nil for success.
func (a pmpAnswer) refusal() error {
	switch a.result {
	case pmpSuccess:
		return nil
	case pmpUnsuppVersion:
		return ErrNotSpoken
	default:
		return &RefusedError{NATPMP, int(a.result), a.result.String(), 0}
	}
}
