package stun

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/netip"

	pion "github.com/pion/stun/v3"
)

const (
	cookie          = 0x2112A442
	headerSize      = 20
	attrSize        = 4 // type and length before each value
	usernameSize    = 33
	macSize         = sha256.Size
	fingerprintSize = 4

	// MinProbe is the size of a probe without padding, in bytes.
	MinProbe = headerSize + attrSize + 36 + attrSize + macSize + attrSize + fingerprintSize
	// MaxProbe is the size of the largest probe, in bytes: what fits in UDP over
	// IPv4, rounded down to 4.
	MaxProbe = 65504

	changeIP   = 4 // flags of CHANGE-REQUEST, RFC 5780 section 7.2
	changePort = 2

	bindingRequest = 0x0001
	bindingSuccess = 0x0101
	bindingError   = 0x0111
)

// Probe is what a probe says.
type Probe struct {
	Tx       TxID
	To, From ProbeID // receiver and sender
	// Size is that of the whole UDP payload in bytes, rounded up to a multiple of
	// 4. Zero means no padding: [MinProbe].
	Size int
}

// AppendProbe appends a probe to b under the receiver's key. It fails with
// [ErrSize] when no probe can have that size; b comes back as it was then.
func AppendProbe(b []byte, p Probe, receiver ProbeKey) ([]byte, error) {
	size := (p.Size + 3) &^ 3
	if p.Size == 0 {
		size = MinProbe
	}
	if size < MinProbe || size > MaxProbe {
		return b, ErrSize
	}
	start := len(b)
	b = appendHeader(b, bindingRequest, p.Tx)
	b = appendAttr(b, pion.AttrUsername, usernameSize)
	b = hex.AppendEncode(b, p.To[:])
	b = append(b, ':')
	b = hex.AppendEncode(b, p.From[:])
	b = append(b, 0, 0, 0)
	b = appendPadding(b, size-MinProbe)
	return seal(b, start, receiver[:]), nil
}

// AppendAnswer appends the answer to the probe tx that came from mapped, under
// the key k that the probe was made with, which is the answering side's own.
// mapped must be valid.
func AppendAnswer(b []byte, tx TxID, mapped netip.AddrPort, k ProbeKey) []byte {
	start := len(b)
	b = appendHeader(b, bindingSuccess, tx)
	b = appendXOR(b, tx, mapped)
	return seal(b, start, k[:])
}

// RequestOptions are the extras of a plain STUN request; the zero value has none.
type RequestOptions struct {
	// ChangeIP and ChangePort ask for the answer from the server's other IP
	// address or port (CHANGE-REQUEST, RFC 5780 section 7.2).
	ChangeIP, ChangePort bool
	// ResponsePort asks for the answer to that port of the address that the
	// request comes from (RFC 5780 section 7.5). Zero: none.
	ResponsePort uint16
	// Padding is the number of padding bytes to add, rounded up to a multiple of
	// 4. Zero: none. The attribute takes 4 bytes more.
	Padding int
}

// AppendRequest appends a plain Binding request to b.
func AppendRequest(b []byte, tx TxID, opt RequestOptions) []byte {
	start := len(b)
	b = appendHeader(b, bindingRequest, tx)
	if opt.ChangeIP || opt.ChangePort {
		var flags uint32
		if opt.ChangeIP {
			flags |= changeIP
		}
		if opt.ChangePort {
			flags |= changePort
		}
		b = appendAttr(b, pion.AttrChangeRequest, 4)
		b = binary.BigEndian.AppendUint32(b, flags)
	}
	if opt.ResponsePort != 0 {
		b = appendAttr(b, pion.AttrResponsePort, 2)
		b = binary.BigEndian.AppendUint16(b, opt.ResponsePort)
		b = append(b, 0, 0)
	}
	if opt.Padding > 0 {
		b = appendPadding(b, attrSize+(min(opt.Padding, MaxProbe-MinProbe)+3)&^3)
	}
	setLength(b[start:], len(b)-start)
	return b
}

func appendHeader(b []byte, typ uint16, tx TxID) []byte {
	b = binary.BigEndian.AppendUint16(b, typ)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint32(b, cookie)
	return append(b, tx[:]...)
}

func appendAttr(b []byte, t pion.AttrType, length int) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(t))
	return binary.BigEndian.AppendUint16(b, uint16(length))
}

// appendPadding appends a PADDING attribute that takes n bytes in all; n is 0
// (none) or a multiple of 4.
func appendPadding(b []byte, n int) []byte {
	if n == 0 {
		return b
	}
	b = appendAttr(b, pion.AttrPadding, n-attrSize)
	return append(b, make([]byte, n-attrSize)...)
}

// appendXOR appends XOR-MAPPED-ADDRESS.
func appendXOR(b []byte, tx TxID, a netip.AddrPort) []byte {
	ip := a.Addr().Unmap()
	if ip.Is4() {
		b = appendAttr(b, pion.AttrXORMappedAddress, 8)
		b = append(b, 0, 1)
	} else {
		b = appendAttr(b, pion.AttrXORMappedAddress, 20)
		b = append(b, 0, 2)
	}
	b = binary.BigEndian.AppendUint16(b, a.Port()^cookie>>16)
	at := len(b)
	if ip.Is4() {
		v := ip.As4()
		b = append(b, v[:]...)
	} else {
		v := ip.As16()
		b = append(b, v[:]...)
	}
	xorAddr(b[at:], tx)
	return b
}

// xorAddr is RFC 8489 section 14.2: the cookie, and for IPv6 the transaction ID.
func xorAddr(ip []byte, tx TxID) {
	var pad [16]byte
	binary.BigEndian.PutUint32(pad[:], cookie)
	copy(pad[4:], tx[:])
	for i := range ip {
		ip[i] ^= pad[i]
	}
}

// seal ends the message that begins at start with MESSAGE-INTEGRITY-SHA256 and
// FINGERPRINT.
func seal(b []byte, start int, k []byte) []byte {
	var sum [macSize]byte
	mac(&sum, b[start:], k)
	b = appendAttr(b, pion.AttrMessageIntegritySHA256, macSize)
	b = append(b, sum[:]...)
	return appendFingerprint(b, start)
}

// mac computes MESSAGE-INTEGRITY-SHA256 over m, which ends where that attribute
// begins. The length in the header that is hashed counts the attribute but not
// what comes after it, RFC 8489 section 14.6.
func mac(sum *[macSize]byte, m, k []byte) {
	var head [headerSize]byte
	copy(head[:], m)
	setLength(head[:], len(m)+attrSize+macSize)
	h := hmac.New(sha256.New, k)
	h.Write(head[:])
	h.Write(m[headerSize:])
	h.Sum(sum[:0])
}

func appendFingerprint(b []byte, start int) []byte {
	setLength(b[start:], len(b)-start+attrSize+fingerprintSize)
	v := pion.FingerprintValue(b[start:])
	b = appendAttr(b, pion.AttrFingerprint, fingerprintSize)
	return binary.BigEndian.AppendUint32(b, v)
}

// setLength writes the length of a message of size bytes into its header.
func setLength(m []byte, size int) {
	binary.BigEndian.PutUint16(m[2:], uint16(size-headerSize))
}
