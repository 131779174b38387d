package stun

import (
	"encoding/hex"
	"errors"
	"net/netip"
)

// TxID is a STUN transaction ID.
type TxID [12]byte

// ProbeID names the receiver and the sender of a probe. It is no secret.
type ProbeID [8]byte

// String returns the ID as 16 lower-case hex digits, as it is in USERNAME.
func (p ProbeID) String() string { return hex.EncodeToString(p[:]) }

// ProbeKey is what authenticates the probes that its owner receives, and the
// answers that the owner gives. It is a secret of the two peers and prints
// redacted.
type ProbeKey [32]byte

// String returns a constant, so that a key cannot end up in a log.
func (ProbeKey) String() string { return "(probe key)" }

// GoString is like [ProbeKey.String].
func (ProbeKey) GoString() string { return "(probe key)" }

// Kind tells apart what [Parse] understands.
type Kind uint8

// The kinds of messages.
const (
	KindOther    Kind = iota // valid STUN that nobody here has a use for
	KindRequest              // a plain Binding request, without USERNAME
	KindProbe                // a Binding request with the USERNAME of a probe
	KindAnswer               // the success response to a probe: with MESSAGE-INTEGRITY-SHA256
	KindResponse             // a plain success response with a mapped address
	KindRefusal              // an error response, with Code
)

// String returns the kind in lower case.
func (k Kind) String() string {
	switch k {
	case KindRequest:
		return "request"
	case KindProbe:
		return "probe"
	case KindAnswer:
		return "answer"
	case KindResponse:
		return "response"
	case KindRefusal:
		return "refusal"
	default:
		return "other"
	}
}

// Message is a STUN message as [Parse] read it.
type Message struct {
	Kind Kind
	Tx   TxID
	// To and From are the IDs of receiver and sender; only in a probe.
	To, From ProbeID
	// Mapped is the address that the other side saw, in an answer or a response.
	Mapped netip.AddrPort
	// Other is OTHER-ADDRESS of RFC 5780 in a response: the server also answers
	// from and at that address. Zero: the server has none.
	Other netip.AddrPort
	// Changes says that a request has CHANGE-REQUEST: the answer is wanted from
	// another address.
	Changes bool
	// Size is the length of the whole message in bytes, with its padding.
	Size int
	// Code is the number of ERROR-CODE in a refusal, 300 to 699.
	Code int

	padded      bool      // has PADDING
	fingerprint bool      // has FINGERPRINT
	unknowns    int       // comprehension-required attributes that we do not know
	unknown     [2]uint16 // the first of them
	raw         []byte    // the message, as long as Verify needs it
	mac         int       // where MESSAGE-INTEGRITY-SHA256 begins in raw; 0: none
}

// ErrMalformed is what [Parse] returns for bytes that are no valid STUN message.
var ErrMalformed = errors.New("stun: malformed message")

// ErrSize says that a probe of such a size cannot be made.
var ErrSize = errors.New("stun: no probe has this size")
