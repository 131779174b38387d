package v1beta1

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"corax/dataplane/key"
)

var (
	loopback6  = netip.MustParsePrefix("::1/128")
	loopback4  = netip.MustParsePrefix("127.0.0.0/8")
	linkLocal6 = netip.MustParsePrefix("fe80::/10")
	linkLocal4 = netip.MustParsePrefix("169.254.0.0/16")
	multicast6 = netip.MustParsePrefix("ff00::/8")
	multicast4 = netip.MustParsePrefix("224.0.0.0/4")
	mapped4    = netip.MustParsePrefix("::ffff:0:0/96")
)

// ParseAddr parses the address of a node: publicIP or privateIP. It refuses
// what no other node can send to: zones, loopback, multicast, unspecified and
// link-local addresses. An IPv4 address written as IPv6 becomes IPv4.
func ParseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("not an IP address: %q", clip(s))
	}
	a = a.Unmap()
	switch {
	case a.Zone() != "":
		return netip.Addr{}, fmt.Errorf("an address with a zone: %q", clip(s))
	case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a.IsLinkLocalUnicast():
		return netip.Addr{}, fmt.Errorf("not an address of a node: %s", a)
	}
	return a, nil
}

// ParseSubnet parses a CIDR of pods and clears its host bits. It refuses what
// no pod can have: all addresses of a family, IPv4 written as IPv6, and ranges
// that overlap loopback, link-local, multicast or the overlay prefix.
func ParseSubnet(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("not a CIDR: %q", clip(s))
	}
	p = p.Masked()
	if p.Bits() == 0 {
		return netip.Prefix{}, fmt.Errorf("%s covers every address", p)
	}
	for _, r := range []netip.Prefix{
		loopback4, loopback6, linkLocal4, linkLocal6, multicast4, multicast6, mapped4, key.OverlayPrefix,
	} {
		if p.Overlaps(r) {
			return netip.Prefix{}, fmt.Errorf("%s overlaps the reserved range %s", p, r)
		}
	}
	return p, nil
}

// ParsePorts parses a comma list of ports, such as proxyHTTPPort. Spaces around
// a port are fine, and so is an empty list. It returns the ports that it could
// read, in order and without repetitions, and an error that names the others.
func ParsePorts(list string) ([]uint16, error) {
	if strings.TrimSpace(list) == "" {
		return nil, nil
	}
	var ports []uint16
	var bad []string
	for f := range strings.SplitSeq(list, ",") {
		p, err := ParsePort(strings.TrimSpace(f))
		switch {
		case err != nil:
			bad = append(bad, err.Error())
		case !slices.Contains(ports, p):
			ports = append(ports, p)
		}
	}
	return ports, joined(bad)
}

// ParsePort parses a port from 1 to 65535.
func ParsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("not a port: %q", clip(s))
	}
	return uint16(n), nil
}

// ParsePortMap parses [AnnotationProxyPorts]: "10250=10281,9100=10285". It
// returns the pairs that it could read, and an error that names the others.
func ParsePortMap(list string) (map[uint16]uint16, error) {
	ports := map[uint16]uint16{}
	if strings.TrimSpace(list) == "" {
		return ports, nil
	}
	var bad []string
	for f := range strings.SplitSeq(list, ",") {
		from, to, _ := strings.Cut(f, "=")
		a, err1 := ParsePort(strings.TrimSpace(from))
		b, err2 := ParsePort(strings.TrimSpace(to))
		if err1 != nil || err2 != nil {
			bad = append(bad, fmt.Sprintf("not port=port: %q", clip(f)))
			continue
		}
		ports[a] = b
	}
	return ports, joined(bad)
}

// joined makes one error of a line of several texts; of none, nil.
func joined(texts []string) error {
	if len(texts) == 0 {
		return nil
	}
	return errors.New(clip(strings.Join(texts, "; ")))
}

// CheckName says what is wrong with the name of a Gateway or a node: it must be
// 1 to 253 visible ASCII characters without '/'. Kubernetes is stricter; hosts
// outside of it may have names that it would refuse.
func CheckName(s string) error {
	if s == "" {
		return errors.New("required")
	}
	if len(s) > 253 {
		return errors.New("longer than 253 characters")
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' || c == '/' {
			return fmt.Errorf("not a name: %q", clip(s))
		}
	}
	return nil
}

// CheckHost says what is wrong with a DNS name (RFC 1123 section 2.1).
func CheckHost(s string) error {
	name := strings.TrimSuffix(s, ".")
	labels := strings.Split(name, ".")
	if name == "" || len(name) > 253 {
		return fmt.Errorf("not a DNS name: %q", clip(s))
	}
	for _, l := range labels {
		if !isLabel(l) {
			return fmt.Errorf("not a DNS name: %q", clip(s))
		}
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return fmt.Errorf("an address, not a DNS name: %q", clip(s))
	}
	return nil
}

func isLabel(l string) bool {
	if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
		return false
	}
	for _, c := range []byte(l) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// clip bounds what a message repeats of somebody's input.
func clip(s string) string { return Clip(s, 100) }

// Clip returns s, or, when it is longer than most bytes, as many of them and dots.
// It bounds what is repeated of others' words, and never ends within a character.
func Clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
