package stun

import (
	"crypto/hmac"
	"encoding/binary"
	"encoding/hex"
	"net/netip"

	pion "github.com/pion/stun/v3"
)

// Parse reads one STUN message that fills b. The error is [ErrMalformed]. The
// message keeps b until [Message.Verify] was called; b is not changed.
//
// It is to be called only for what is not WireGuard: the magic cookie stands where
// WireGuard has a receiver index, which may have the same value.
func Parse(b []byte) (Message, error) {
	if len(b) < headerSize || len(b)%4 != 0 || binary.BigEndian.Uint32(b[4:]) != cookie ||
		int(binary.BigEndian.Uint16(b[2:])) != len(b)-headerSize || b[0]&0xc0 != 0 {
		return Message{}, ErrMalformed
	}
	r := reader{m: Message{Tx: TxID(b[8:headerSize]), Size: len(b), raw: b}}
	// Not by the library's decoder: its errors cost a table of names each, which a
	// flood of malformed packets would make us build.
	for at := headerSize; at < len(b); {
		n := int(binary.BigEndian.Uint16(b[at+2:]))
		next := at + attrSize + (n+3)&^3
		if next > len(b) {
			return Message{}, ErrMalformed
		}
		if !r.attr(pion.AttrType(binary.BigEndian.Uint16(b[at:])), b[at+attrSize:][:n], at) {
			return Message{}, ErrMalformed
		}
		at = next
	}
	if !r.classify(binary.BigEndian.Uint16(b)) {
		return Message{}, ErrMalformed
	}
	return r.m, nil
}

// Verify reports whether the message was made with key k and not changed since.
func (m *Message) Verify(k ProbeKey) bool { return m.verify(k[:]) }

func (m *Message) verify(k []byte) bool {
	if m.mac == 0 {
		return false
	}
	var sum [macSize]byte
	mac(&sum, m.raw[:m.mac], k)
	return hmac.Equal(sum[:], m.raw[m.mac+attrSize:][:macSize])
}

// oldXORMappedAddress is what drafts of RFC 5389 called XOR-MAPPED-ADDRESS.
const oldXORMappedAddress pion.AttrType = 0x8020

// reader collects the attributes of one message.
type reader struct {
	m        Message
	username []byte
	plain    netip.AddrPort // MAPPED-ADDRESS
	late     bool           // something other than FINGERPRINT comes after the MAC
}

// attr takes the attribute that begins at byte at; false means that the message is malformed. Of an
// attribute that comes twice the first counts (RFC 8489 section 14).
func (r *reader) attr(t pion.AttrType, v []byte, at int) bool {
	m := &r.m
	switch {
	case m.fingerprint: // nothing may follow it
		return false
	case t == pion.AttrFingerprint:
		m.fingerprint = len(v) == fingerprintSize &&
			binary.BigEndian.Uint32(v) == pion.FingerprintValue(m.raw[:at])
		return m.fingerprint
	case m.mac != 0: // not covered by the MAC, so it must not count
		r.late = true
		return true
	}
	return r.value(t, v, at)
}

func (r *reader) value(t pion.AttrType, v []byte, at int) bool {
	m := &r.m
	switch t {
	case pion.AttrMessageIntegritySHA256:
		if len(v) != macSize {
			return false // truncated: allowed by the RFC, made by nobody we talk to
		}
		m.mac = at
	case pion.AttrUsername:
		if r.username == nil {
			r.username = v[:len(v):len(v)]
		}
	case pion.AttrPadding:
		m.padded = true
	case pion.AttrChangeRequest:
		m.Changes = true
		return len(v) == 4
	case pion.AttrXORMappedAddress, oldXORMappedAddress:
		return address(&m.Mapped, v, &m.Tx)
	case pion.AttrMappedAddress:
		return address(&r.plain, v, nil)
	case pion.AttrOtherAddress:
		return address(&m.Other, v, nil)
	case pion.AttrErrorCode:
		if len(v) < 4 || v[3] > 99 {
			return false
		}
		m.Code = int(v[2]&7)*100 + int(v[3])
	default:
		if t.Required() && !understood(t) {
			if m.unknowns < len(m.unknown) {
				m.unknown[m.unknowns] = uint16(t)
			}
			m.unknowns++
		}
	}
	return true
}

// understood reports whether an attribute that must be comprehended is known, so
// that a message with it is not refused; it says nothing to us.
func understood(t pion.AttrType) bool {
	switch t {
	case pion.AttrMessageIntegrity, pion.AttrRealm, pion.AttrNonce, pion.AttrUnknownAttributes,
		pion.AttrPasswordAlgorithm, pion.AttrUserhash,
		pion.AttrSourceAddress, pion.AttrChangedAddress: // of RFC 3489, sent by old servers
		return true
	}
	return false
}

func (r *reader) classify(typ uint16) bool {
	m := &r.m
	switch {
	case typ == bindingRequest && r.username == nil:
		m.Kind = KindRequest
	case m.unknowns > 0: // not to be processed, RFC 8489 section 6.3
	case typ == bindingRequest:
		r.probe()
	case typ == bindingSuccess && m.mac != 0:
		if m.Mapped.IsValid() && m.fingerprint && !r.late {
			m.Kind = KindAnswer
		}
	case typ == bindingSuccess:
		if !m.Mapped.IsValid() { // a server of RFC 3489
			m.Mapped = r.plain
		}
		if m.Mapped.IsValid() {
			m.Kind = KindResponse
		}
	case typ == bindingError:
		if m.Code < 300 || m.Code > 699 {
			return false
		}
		m.Kind = KindRefusal
	}
	return true
}

// probe sets the kind when USERNAME and what ends the message are those of a
// probe; ICE has Binding requests with USERNAME too.
func (r *reader) probe() {
	m, u := &r.m, r.username
	if len(u) != usernameSize || u[16] != ':' || m.mac == 0 || !m.fingerprint || r.late {
		return
	}
	if lowerHex(m.To[:], u[:16]) && lowerHex(m.From[:], u[17:]) {
		m.Kind = KindProbe
	}
}

// lowerHex decodes src, which has one spelling only.
func lowerHex(dst, src []byte) bool {
	for _, c := range src {
		if 'A' <= c && c <= 'F' {
			return false
		}
	}
	_, err := hex.Decode(dst, src)
	return err == nil
}

// address reads an address attribute into to, unless it is set already; with tx
// the value is XORed.
func address(to *netip.AddrPort, v []byte, tx *TxID) bool {
	var ip [16]byte
	size := 4
	switch {
	case len(v) == 8 && v[1] == 1:
	case len(v) == 20 && v[1] == 2:
		size = 16
	default:
		return false
	}
	copy(ip[:], v[4:])
	port := binary.BigEndian.Uint16(v[2:])
	if tx != nil {
		xorAddr(ip[:size], *tx)
		port ^= cookie >> 16
	}
	if to.IsValid() {
		return true
	}
	a, _ := netip.AddrFromSlice(ip[:size])
	*to = netip.AddrPortFrom(a.Unmap(), port)
	return true
}
