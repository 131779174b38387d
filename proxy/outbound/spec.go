package outbound

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Map is a port of this host that stands for one of another domain.
type Map struct {
	Network string // tcp or udp
	Listen  netip.AddrPort
	Host    string // an address, or a name
	Port    uint16
}

// String returns the map as ParseMap reads it.
func (m Map) String() string {
	return m.Key() + "=" + net.JoinHostPort(m.Host, strconv.Itoa(int(m.Port)))
}

// Key names the map: nothing else has the same listener.
func (m Map) Key() string { return m.Network + "/" + m.Listen.String() }

// ParseMap reads tcp|udp/LISTEN=HOST:PORT, where LISTEN is IP:PORT, or a port of
// 127.0.0.1.
func ParseMap(s string) (Map, error) {
	left, right, ok := strings.Cut(s, "=")
	if !ok {
		return Map{}, fmt.Errorf("outbound: %q is not tcp|udp/LISTEN=HOST:PORT", s)
	}
	m, err := ParseKey(left)
	if err != nil {
		return Map{}, err
	}
	host, port, err := net.SplitHostPort(right)
	if err != nil {
		return Map{}, fmt.Errorf("outbound: %q is not HOST:PORT", right)
	}
	if m.Host, err = checkHost(host); err != nil {
		return Map{}, err
	}
	m.Port, err = parsePort(port)
	return m, err
}

// ParseKey reads tcp|udp/LISTEN.
func ParseKey(s string) (Map, error) {
	network, listen, ok := strings.Cut(s, "/")
	if !ok || network != "tcp" && network != "udp" {
		return Map{}, fmt.Errorf("outbound: %q is not tcp/LISTEN or udp/LISTEN", s)
	}
	m := Map{Network: network}
	if port, err := parsePort(listen); err == nil {
		m.Listen = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
		return m, nil
	}
	at, err := netip.ParseAddrPort(listen)
	if err != nil || at.Port() == 0 || at.Addr().IsMulticast() {
		return Map{}, fmt.Errorf("outbound: %q is neither IP:PORT nor a port", listen)
	}
	m.Listen = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	return m, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] == '+' {
		return 0, fmt.Errorf("outbound: %q is not a port", s)
	}
	return uint16(n), nil
}

// checkHost returns a host in the form that is dialled. Names are those of DNS.
func checkHost(s string) (string, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" {
			return "", fmt.Errorf("outbound: %q has a zone", s)
		}
		return a.Unmap().String(), nil
	}
	bad := s == "" || len(s) > 253
	for _, r := range s {
		bad = bad || !(r == '-' || r == '.' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	}
	if bad {
		return "", fmt.Errorf("outbound: %q is neither an address nor a name", s)
	}
	return s, nil
}
