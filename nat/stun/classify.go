package stun

import (
	"net/netip"
	"slices"
)

func (f *family) report() Family {
	r := Family{Mapping: f.mapping(), Filtering: f.filtering(), Hairpin: f.hairpin(), Lifetime: f.life.result()}
	waits, preserved := false, true
	for _, a := range f.asks {
		if a.why != askServer {
			continue
		}
		s := ServerReport{Addr: a.to}
		if a.outcome == replied {
			s.Answered, s.RTT, s.Mapped = true, a.rtt, a.mapped
			preserved = preserved && f.ownPort(a.mapped.Port())
		}
		waits = waits || a.outcome == waiting
		r.Servers = append(r.Servers, s)
	}
	for _, a := range f.tunnel() {
		if !slices.Contains(r.Public, a.mapped) {
			r.Public = append(r.Public, a.mapped)
		}
	}
	r.Blocked = len(r.Servers) > 0 && !waits && !r.answered()
	r.PortPreserved = r.answered() && preserved
	if r.Mapping.dependent() {
		r.PortStep = portStep(ports(f.tunnel()), ports(f.extras()))
	}
	return r
}

func (f *family) ownPort(p uint16) bool {
	return slices.ContainsFunc(f.local, func(l netip.AddrPort) bool { return l.Port() == p })
}

// tunnel returns what was asked from the tunnel socket to learn its mappings and
// was answered.
func (f *family) tunnel() []*ask { return f.replies(askServer, askOther) }

func (f *family) extras() []*ask { return f.replies(askHome, askSpread) }

func (f *family) replies(why ...purpose) []*ask {
	var out []*ask
	for _, a := range f.asks {
		if a.outcome == replied && slices.Contains(why, a.why) {
			out = append(out, a)
		}
	}
	return out
}

// mapping compares what the destinations saw of the tunnel socket (RFC 5780
// section 4.3). When the mappings differ and no two destinations had the same
// address, nobody knows whether the port matters: the harder case is assumed.
func (f *family) mapping() Mapping {
	var differ, addrs, portsSame, portsDiffer bool
	asks := f.tunnel()
	for i, a := range asks {
		if slices.Contains(f.local, a.mapped) {
			return MappingNone
		}
		for _, b := range asks[:i] {
			same := a.mapped == b.mapped
			differ = differ || !same
			if a.to.Addr() != b.to.Addr() {
				addrs = true
				continue
			}
			portsSame = portsSame || same
			portsDiffer = portsDiffer || !same
		}
	}
	switch {
	case portsDiffer:
		return MappingAddressAndPortDependent
	case differ && portsSame:
		return MappingAddressDependent
	case differ:
		return MappingAddressAndPortDependent
	case addrs:
		return MappingEndpointIndependent
	}
	return MappingUnknown
}

func (f *family) filtering() Filtering {
	switch {
	case f.find(askFilterBoth, replied) != nil:
		return FilteringEndpointIndependent
	case f.find(askFilterBoth, silent) == nil:
		return FilteringUnknown // not tested, not done, or the server does not do it
	case f.find(askFilterPort, replied) != nil:
		return FilteringAddressDependent
	case f.find(askFilterPort, silent) != nil:
		return FilteringAddressAndPortDependent
	}
	return FilteringUnknown
}

func (f *family) hairpin() Tri {
	switch {
	case f.find(askHairpin, replied) != nil:
		return Yes
	case f.find(askHairpin, waiting) == nil && f.find(askHairpin, silent) != nil:
		return No
	}
	return Unknown
}

func ports(asks []*ask) []uint16 {
	var out []uint16
	for _, a := range asks {
		out = append(out, a.mapped.Port())
	}
	return out
}

// maxGap is the largest difference between two successive mappings that is taken
// for a sign of counting: some steps, with others' mappings in between. Of two
// random ports one pair in 500 is as near.
const maxGap = 64

// portStep finds the step of a NAT that counts ports up or down, from runs of
// ports each in the order in which they were given out. Others' mappings may lie
// in between, and the count may have wrapped around once.
func portStep(runs ...[]uint16) int {
	var up, down []int
	far := 0
	for _, run := range runs {
		for i := 1; i < len(run); i++ {
			switch d := int(run[i]) - int(run[i-1]); {
			case d == 0: // the same mapping
			case d > 0 && d <= maxGap:
				up = append(up, d)
			case d < 0 && d >= -maxGap:
				down = append(down, -d)
			default:
				far++
			}
		}
	}
	steps, against, sign := up, len(down)+far, 1
	if len(down) > len(up) {
		steps, against, sign = down, len(up)+far, -1
	}
	// One jump may be the wrap, of a wide range or of one narrower than maxGap.
	if len(steps) <= against || against > 1 {
		return 0
	}
	step := 0
	for _, s := range steps {
		step = gcd(step, s)
	}
	return sign * step
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
