package wg

import (
	"encoding/binary"
	"net/netip"

	"corax/dataplane/key"
)

// Kind says what a datagram on the tunnel port is, by its form alone.
type Kind uint8

// The kinds. WireGuard's are tested first: the cookie of a STUN message lies
// where a WireGuard receiver index does, so a session whose index equals the
// cookie would be lost otherwise.
const (
	KindUnknown     Kind = iota
	KindInitiation       // WireGuard handshake initiation
	KindResponse         // WireGuard handshake response
	KindCookieReply      // WireGuard cookie reply
	KindData             // WireGuard transport data, keepalives too
	KindRelay            // relay frame: 0xC5, 56-bit label, datagram
	KindSTUN             // STUN message (RFC 8489)
)

// String returns the name as metrics show it.
func (k Kind) String() string {
	switch k {
	case KindInitiation:
		return "initiation"
	case KindResponse:
		return "response"
	case KindCookieReply:
		return "cookie_reply"
	case KindData:
		return "data"
	case KindRelay:
		return "relay"
	case KindSTUN:
		return "stun"
	default:
		return "unknown"
	}
}

// A Datagram is one that arrived and is neither WireGuard nor a relay frame.
type Datagram struct {
	Kind Kind
	// From is who sent it; for one that was relayed over UDP, the hub.
	From   netip.AddrPort
	Local  netip.Addr // the address of ours that it was sent to, when known
	Socket Socket     // that it arrived at
	// Stream is set when it came over one. Peer is the stream's peer then.
	Stream Stream
	// Via, Label and Peer, which is the origin, are set when it was relayed.
	Peer, Via key.Public
	Label     Label
	Data      []byte // valid until Config.Other returns, which may change it
}

// Message sizes and offsets in bytes (WireGuard paper, section 5.4).
const (
	sizeInitiation  = 148
	sizeResponse    = 92
	sizeCookieReply = 64
	sizeDataHeader  = 16
	sizeKeepalive   = sizeDataHeader + 16 // header and tag: the smallest data message

	offSender           = 4 // initiation, response
	offReceiver         = 4 // data, cookie reply
	offReceiverResponse = 8
)

const (
	relayByte   = 0xC5
	relayHeader = 8

	stunHeader = 20
	stunCookie = 0x2112A442 // RFC 8489 section 5
)

// Classify says what a datagram is. It never reads past the end, and does not
// allocate.
func Classify(b []byte) Kind {
	if len(b) < relayHeader {
		return KindUnknown
	}
	switch binary.LittleEndian.Uint32(b) {
	case 1:
		if len(b) == sizeInitiation {
			return KindInitiation
		}
	case 2:
		if len(b) == sizeResponse {
			return KindResponse
		}
	case 3:
		if len(b) == sizeCookieReply {
			return KindCookieReply
		}
	case 4:
		if len(b) >= sizeKeepalive {
			return KindData
		}
	}
	if b[0] == relayByte {
		return KindRelay
	}
	if len(b) >= stunHeader && b[0]&0xC0 == 0 && binary.BigEndian.Uint32(b[4:]) == stunCookie {
		return KindSTUN
	}
	return KindUnknown
}

// index reads the little-endian session index at off.
func index(b []byte, off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
