package portmap

import "sync/atomic"

// Counter is the value of one of the counters; it has the fields of
// dataplane.Counter, so that the one converts to the other.
type Counter struct {
	Name   string
	Reason string
	Value  uint64
}

// dropReason is why a packet is no answer to what we asked.
type dropReason uint8

const (
	dropNot dropReason = iota // it is one
	dropShort
	dropSize
	dropVersion
	dropNotResponse
	dropMismatch
	dropNonce
	dropSource
	dropSSDP
	dropURL
	dropReasons
)

func (d dropReason) String() string {
	switch d {
	case dropShort:
		return "short"
	case dropSize:
		return "size"
	case dropVersion:
		return "version"
	case dropNotResponse:
		return "not_response"
	case dropMismatch:
		return "mismatch"
	case dropNonce:
		return "nonce"
	case dropSource:
		return "source"
	case dropSSDP:
		return "ssdp"
	case dropURL:
		return "url"
	default:
		return "none"
	}
}

// drops counts by reason.
type drops [dropReasons]atomic.Uint64

func (d *drops) add(r dropReason) {
	if r != dropNot && r < dropReasons {
		d[r].Add(1)
	}
}

func (d *drops) counters() (out []Counter) {
	for r := dropShort; r < dropReasons; r++ {
		out = append(out, Counter{"nat_portmap_drop_total", r.String(), d[r].Load()})
	}
	return out
}
