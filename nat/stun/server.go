package stun

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	pion "github.com/pion/stun/v3"
)

const (
	// serverRate is how many requests a second one source may ask on average, and
	// serverBurst how many at once: a NAT with some nodes behind it, each of which
	// asks a dozen times when it looks what the NAT is like.
	serverRate  = 20
	serverBurst = 100
	// serverSlots is the number of sources that are told apart. More of them share
	// slots, so that nobody can make room by asking from many addresses; it also
	// bounds what is answered in all.
	serverSlots = 8192
	// maxAnswer is the largest answer in bytes to a request without padding.
	maxAnswer = 44
)

// Server answers plain Binding requests (RFC 8489). It keeps nothing of a client
// but a rate limit, and the zero value is ready. It may be used from several
// goroutines.
//
// Who only sends a request gets at most 44 bytes, who adds padding or attributes
// that must be refused gets no more than he sent, and who asks for an answer at or
// from another address (RFC 5780) gets none: the server is no use as a reflector.
type Server struct {
	limit   limiter
	reasons [reasonCount]atomic.Uint64
}

// reason is why a request was answered or not.
type reason int

const (
	answered reason = iota
	refused
	dropMalformed
	dropNotRequest
	dropRate
	dropChangeRequest
	dropUnknownAttribute
	dropTooShort
	dropSource
	reasonCount
)

// Counter is the present value of one counter.
type Counter struct {
	Name   string // "nat_stun_server_drop_total", for example
	Reason string // tells counters of one name apart
	Value  uint64
}

// Counters returns the present values of all counters.
func (s *Server) Counters() []Counter {
	names := [reasonCount]string{
		answered: "success", refused: "unknown_attribute",
		dropMalformed: "malformed", dropNotRequest: "not_a_request", dropRate: "rate",
		dropChangeRequest: "change_request", dropUnknownAttribute: "unknown_attribute",
		dropTooShort: "answer_larger_than_request", dropSource: "source",
	}
	out := make([]Counter, reasonCount)
	for r := range reasonCount {
		out[r] = Counter{Name: "nat_stun_server_drop_total", Reason: names[r], Value: s.reasons[r].Load()}
		if r == answered || r == refused {
			out[r].Name = "nat_stun_server_answer_total"
		}
	}
	return out
}

// Answer appends the answer to the packet req that came from from at time now to
// dst. When there is none to give it returns dst as it was, and false. It keeps
// neither slice and may be called for any packet that is not WireGuard; a probe
// gets no answer here.
func (s *Server) Answer(dst, req []byte, from netip.AddrPort, now time.Time) ([]byte, bool) {
	out, why := s.answer(dst, req, from, now)
	s.reasons[why].Add(1)
	return out, why == answered || why == refused
}

func (s *Server) answer(dst, req []byte, from netip.AddrPort, now time.Time) ([]byte, reason) {
	// What is cheap to see comes first, so that a flood costs little.
	if len(req) < headerSize || binary.BigEndian.Uint32(req[4:]) != cookie {
		return dst, dropMalformed
	}
	if binary.BigEndian.Uint16(req) != bindingRequest {
		return dst, dropNotRequest // also stops two servers from talking to each other
	}
	ip := from.Addr().Unmap()
	if !ip.IsValid() || ip.IsUnspecified() || ip.IsMulticast() || from.Port() == 0 || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return dst, dropSource
	}
	if !s.limit.allow(ip, now) {
		return dst, dropRate
	}
	m, err := Parse(req)
	switch {
	case err != nil:
		return dst, dropMalformed
	case m.Kind != KindRequest:
		return dst, dropNotRequest
	case m.Changes:
		return dst, dropChangeRequest
	case m.unknowns > 0:
		return refuse(dst, &m)
	}
	return succeed(dst, &m, netip.AddrPortFrom(ip, from.Port()))
}

func succeed(dst []byte, m *Message, from netip.AddrPort) ([]byte, reason) {
	size := headerSize + attrSize + 8
	if from.Addr().Is6() {
		size = maxAnswer
	}
	limit := maxAnswer
	if m.padded {
		limit = m.Size
	}
	if size > limit {
		return dst, dropTooShort
	}
	start := len(dst)
	dst = appendHeader(dst, bindingSuccess, m.Tx)
	dst = appendXOR(dst, m.Tx, from)
	if m.fingerprint && size+attrSize+fingerprintSize <= min(limit, maxAnswer) {
		return appendFingerprint(dst, start), answered
	}
	setLength(dst[start:], size)
	return dst, answered
}

// refuse appends error 420 with UNKNOWN-ATTRIBUTES (RFC 8489 section 6.3.1), if
// that is no more than the request had.
func refuse(dst []byte, m *Message) ([]byte, reason) {
	n := min(m.unknowns, len(m.unknown))
	size := headerSize + attrSize + 4 + attrSize + (2*n+3)&^3
	if size > m.Size {
		return dst, dropUnknownAttribute
	}
	start := len(dst)
	dst = appendHeader(dst, bindingError, m.Tx)
	dst = appendAttr(dst, pion.AttrErrorCode, 4)
	dst = append(dst, 0, 0, 4, 20)
	dst = appendAttr(dst, pion.AttrUnknownAttributes, 2*n)
	for _, t := range m.unknown[:n] {
		dst = binary.BigEndian.AppendUint16(dst, t)
	}
	for len(dst)-start < size {
		dst = append(dst, 0)
	}
	setLength(dst[start:], size)
	return dst, refused
}

// limiter is a token bucket per source, kept as the time at which the bucket will
// be full again (the generic cell rate algorithm): 8 bytes a slot.
type limiter struct {
	mu    sync.Mutex
	seed  maphash.Seed // secret, so that nobody can aim at the slot of another
	slots []int64      // Unix time in ns; nil until the first request
}

// allow takes a token of the /32 or /64 of ip.
func (l *limiter) allow(ip netip.Addr, now time.Time) bool {
	const each = int64(time.Second / serverRate)
	if ip.Is6() {
		a := ip.As16()
		clear(a[8:])
		ip = netip.AddrFrom16(a) // also drops the zone
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.slots == nil {
		l.seed = maphash.MakeSeed()
		l.slots = make([]int64, serverSlots)
	}
	slot, t := &l.slots[maphash.Comparable(l.seed, ip)%serverSlots], now.UnixNano()
	// A clock that was set back must not lock a source out.
	if *slot < t || *slot > t+serverBurst*each {
		*slot = t
	}
	if *slot+each > t+serverBurst*each {
		return false
	}
	*slot += each
	return true
}
