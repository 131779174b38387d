package forward

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Destinations are addresses with one port, or every port when it is zero.
type Destinations struct {
	Prefix netip.Prefix
	Port   uint16
}

func (d Destinations) contains(a netip.AddrPort) bool {
	return d.Prefix.Contains(a.Addr()) && (d.Port == 0 || d.Port == a.Port())
}

// ParseDestinations reads 10.0.0.1, 10.0.0.0/24, 10.0.0.0/24:80, fd00::/64,
// [fd00::1]:80 or [fd00::]/64:80.
func ParseDestinations(s string) (Destinations, error) {
	fail := func(why string) (Destinations, error) {
		return Destinations{}, fmt.Errorf("forward: %q is not IP[/BITS][:PORT]: %s", s, why)
	}
	d, rest := Destinations{}, s
	if i := strings.LastIndexByte(s, ':'); i > 0 && (strings.HasPrefix(s, "[") && i > strings.IndexByte(s, ']') || strings.Count(s, ":") == 1) {
		n, err := strconv.ParseUint(s[i+1:], 10, 16)
		if err != nil || n == 0 {
			return fail("no port")
		}
		d.Port, rest = uint16(n), s[:i]
	}
	if strings.HasPrefix(rest, "[") {
		rest = strings.Replace(rest[1:], "]", "", 1)
	}
	if a, err := netip.ParseAddr(rest); err == nil {
		if a.Zone() != "" {
			return fail("it has a zone")
		}
		d.Prefix = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
		return d, nil
	}
	p, err := netip.ParsePrefix(rest)
	switch {
	case err != nil || p.Addr().Is4In6():
		return fail("no prefix")
	case p != p.Masked():
		return fail(fmt.Sprintf("it has bits after its prefix: %v is meant?", p.Masked()))
	}
	d.Prefix = p
	return d, nil
}
