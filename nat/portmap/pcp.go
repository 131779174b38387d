package portmap

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// RFC 6887 section 7.
const (
	pcpVersion    = 2
	pcpAnnounce   = 0
	pcpMap        = 1
	pcpResponse   = 0x80
	pcpHeaderSize = 24
	pcpMapSize    = 60
	pcpMaxSize    = 1100
	protoUDP      = 17
)

// pcpResult is a result code of RFC 6887 section 7.4.
type pcpResult uint8

const (
	pcpSuccess pcpResult = iota
	pcpUnsuppVersion
	pcpNotAuthorized
	pcpMalformedRequest
	pcpUnsuppOpcode
	pcpUnsuppOption
	pcpMalformedOption
	pcpNetworkFailure
	pcpNoResources
	pcpUnsuppProtocol
	pcpUserExQuota
	pcpCannotProvideExternal
	pcpAddressMismatch
	pcpExcessiveRemotePeers
)

func (r pcpResult) String() string {
	switch r {
	case pcpSuccess:
		return "success"
	case pcpUnsuppVersion:
		return "version not supported"
	case pcpNotAuthorized:
		return "not authorized"
	case pcpMalformedRequest:
		return "malformed request"
	case pcpUnsuppOpcode:
		return "opcode not supported"
	case pcpUnsuppOption:
		return "option not supported"
	case pcpMalformedOption:
		return "malformed option"
	case pcpNetworkFailure:
		return "the router has no external network"
	case pcpNoResources:
		return "the router is out of resources"
	case pcpUnsuppProtocol:
		return "UDP not supported"
	case pcpUserExQuota:
		return "quota used up"
	case pcpCannotProvideExternal:
		return "the external port or address cannot be had"
	case pcpAddressMismatch:
		return "there is a NAT between us and the router"
	case pcpExcessiveRemotePeers:
		return "too many remote peers"
	default:
		return "unknown result"
	}
}

// pcpNonce ties answers and renewals to a mapping.
type pcpNonce [12]byte

// pcpRequest is an ANNOUNCE or, with a nonce and ports, a MAP for UDP.
type pcpRequest struct {
	opcode   uint8
	lifetime uint32 // seconds; zero deletes
	client   netip.Addr
	nonce    pcpNonce
	internal uint16
	external uint16 // suggested; zero: any
}

func appendPCP(b []byte, r pcpRequest) []byte {
	b = append(b, pcpVersion, r.opcode, 0, 0)
	b = binary.BigEndian.AppendUint32(b, r.lifetime)
	client := r.client.As16()
	b = append(b, client[:]...)
	if r.opcode != pcpMap {
		return b
	}
	b = append(b, r.nonce[:]...)
	b = append(b, protoUDP, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, r.internal)
	b = binary.BigEndian.AppendUint16(b, r.external)
	// Any external address of the client's family (RFC 6887 section 11.1).
	anyAddr := netip.IPv6Unspecified().As16()
	if r.client.Unmap().Is4() {
		anyAddr = netip.AddrFrom4([4]byte{}).As16()
	}
	return append(b, anyAddr[:]...)
}

// pcpAnswer is a response. The fields from nonce on are those of MAP, and valid
// only when mapped is set.
type pcpAnswer struct {
	opcode   uint8
	result   pcpResult
	lifetime time.Duration // of the mapping, or of the error
	epoch    uint32        // seconds

	mapped       bool
	nonce        pcpNonce
	proto        uint8
	internal     uint16
	externalPort uint16
	external     netip.Addr
}

// parsePCP reads a response. A NAT-PMP server's "unsupported version" (RFC 6886
// section 3.5) has the result at the same place and is returned as such.
func parsePCP(b []byte) (pcpAnswer, dropReason) {
	switch {
	case len(b) < 4:
		return pcpAnswer{}, dropShort
	case b[1]&pcpResponse == 0:
		return pcpAnswer{}, dropNotResponse
	case pcpResult(b[3]) == pcpUnsuppVersion:
		return pcpAnswer{opcode: b[1] &^ pcpResponse, result: pcpUnsuppVersion}, dropNot
	case b[0] != pcpVersion:
		return pcpAnswer{}, dropVersion
	case len(b) < pcpHeaderSize:
		return pcpAnswer{}, dropShort
	case len(b) > pcpMaxSize || len(b)%4 != 0: // RFC 6887 section 8.3
		return pcpAnswer{}, dropSize
	}
	a := pcpAnswer{
		opcode:   b[1] &^ pcpResponse,
		result:   pcpResult(b[3]),
		lifetime: time.Duration(binary.BigEndian.Uint32(b[4:])) * time.Second,
		epoch:    binary.BigEndian.Uint32(b[8:]),
	}
	if a.opcode != pcpMap || len(b) < pcpMapSize {
		if a.opcode == pcpMap && a.result == pcpSuccess {
			return pcpAnswer{}, dropShort
		}
		return a, dropNot
	}
	a.mapped = true
	a.nonce = pcpNonce(b[24:36])
	a.proto = b[36]
	a.internal = binary.BigEndian.Uint16(b[40:])
	a.externalPort = binary.BigEndian.Uint16(b[42:])
	a.external = netip.AddrFrom16([16]byte(b[44:60])).Unmap()
	return a, dropNot
}

// answers says why the response is none to the request; dropNot when it is.
func (a pcpAnswer) answers(r pcpRequest) dropReason {
	switch {
	case a.opcode != r.opcode:
		return dropMismatch
	case r.opcode != pcpMap:
		return dropNot
	case a.mapped && a.nonce != r.nonce:
		return dropNonce
	case a.mapped && (a.proto != protoUDP || a.internal != r.internal):
		return dropMismatch
	case !a.mapped && a.result != pcpUnsuppVersion && a.result != pcpMalformedRequest && a.result != pcpUnsuppOpcode:
		// Only a server that did not understand the request may leave our
		// nonce out: anybody could have sent it otherwise.
		return dropNonce
	}
	return dropNot
}

// refusal is the error of the result; nil for success.
func (a pcpAnswer) refusal() error {
	switch a.result {
	case pcpSuccess:
		return nil
	case pcpUnsuppVersion:
		return ErrNotSpoken
	default:
		return &RefusedError{PCP, int(a.result), a.result.String(), a.lifetime}
	}
}
