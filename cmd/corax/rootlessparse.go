package main

import (
	"fmt"
	"net/netip"
	"strings"

	"corax/proxy/forward"
	"corax/proxy/outbound"
)

// rootlessSettings are the settings of what stands in for a TUN.
func rootlessSettings(cfg *agentConfig, readFile func(string) ([]byte, error)) []*setting {
	return []*setting{
		{
			flag: "expose", key: "expose", arg: "IP=HOST-IP", list: true, parse: exposes(&cfg.Expose),
			usage: "without a TUN: connections of other domains to IP, one of this node's own subnets, go to HOST-IP, which may be loopback",
		},
		{
			flag: "proxy-protocol", key: "proxyProtocol", arg: "IP[/BITS][:PORT]", list: true, parse: destinations(&cfg.ProxyProtocol),
			usage: "without a TUN: begin TCP connections to these with a PROXY protocol header (version 2)",
		},
		{
			flag: "socks-addr", key: "socksAddr", arg: "PORT|IP:PORT|FILE", parse: loopback(&cfg.SOCKSAddr),
			usage: "SOCKS5 for programs of this node, on loopback or a unix socket (default: nowhere)",
		},
		{
			flag: "http-proxy-addr", key: "httpProxyAddr", arg: "PORT|IP:PORT|FILE", parse: loopback(&cfg.HTTPProxyAddr),
			usage: "HTTP CONNECT, likewise",
		},
		{
			flag: "socks-users-file", key: "socksUsersFile", arg: "FILE", parse: usersFile(&cfg.SOCKSUsers, readFile),
			usage: "lines of user:password that SOCKS5 and HTTP CONNECT ask for (default: nobody is asked)",
		},
		{
			flag: "cluster-dns", key: "clusterDNS", arg: "IP[:PORT]", parse: nameServer(&cfg.ClusterDNS),
			usage: "name server in a subnet of another domain, or the Service of one, for names that programs of this node ask for",
		},
		{
			flag: "service-cidr", key: "serviceCIDRs", arg: "CIDR", list: true, parse: prefixes(&cfg.ServiceCIDRs),
			usage: "addresses of Services, which programs of this node reach through the proxies too; with a cluster, whose Services are read then",
		},
		{
			flag: "forward", key: "forwards", arg: "tcp|udp/LISTEN=HOST:PORT", list: true, parse: portMaps(&cfg.Forwards),
			usage: "listen for programs of this node, and connect them with a port of another domain; may be repeated",
		},
	}
}

// loopback parses where a proxy listens: a port of 127.0.0.1, a loopback address with
// a port, or the path of a unix socket. Elsewhere everybody could use it.
func loopback(dst *doorAt) func(string) error {
	return func(s string) error {
		if strings.HasPrefix(s, "/") {
			dst.addr = netip.AddrPort{}
			return socketPath(&dst.path)(s)
		}
		dst.path = ""
		var p uint16
		if port(&p)(strings.TrimPrefix(s, ":")) == nil {
			dst.addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), p)
			return nil
		}
		at, err := netip.ParseAddrPort(s)
		if err != nil || !at.Addr().IsLoopback() || at.Port() == 0 {
			return fmt.Errorf("%q is neither a port, nor a loopback address with a port, nor the path of a socket", s)
		}
		dst.addr = at
		return nil
	}
}

func nameServer(dst *netip.AddrPort) func(string) error {
	return func(s string) error {
		if at, err := netip.ParseAddrPort(s); err == nil && at.Port() != 0 {
			*dst = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
			return nil
		}
		a, err := parseAddr(s)
		if err != nil {
			return err
		}
		*dst = netip.AddrPortFrom(a, 53)
		return nil
	}
}

func portMaps(dst *[]outbound.Map) func(string) error {
	return func(s string) error {
		return each(s, func(s string) error {
			m, err := outbound.ParseMap(s)
			if err == nil {
				*dst = append(*dst, m)
			}
			return err
		})
	}
}

// usersFile reads lines of user:password. Empty lines and those that begin with #
// are none.
func usersFile(dst *map[string]string, readFile func(string) ([]byte, error)) func(string) error {
	return func(path string) error {
		data, err := readFile(path)
		if err != nil {
			return err
		}
		users := map[string]string{}
		n := 0
		for line := range strings.Lines(string(data)) {
			n++
			line = strings.TrimRight(line, "\r\n")
			if line == "" || line[0] == '#' {
				continue
			}
			user, password, ok := strings.Cut(line, ":")
			// RFC 1929 has one byte for the length of each.
			if !ok || user == "" || password == "" || len(user) > 255 || len(password) > 255 {
				return fmt.Errorf("%s:%d: not user:password", path, n)
			}
			users[user] = password
		}
		if len(users) == 0 {
			return fmt.Errorf("%s has no user", path)
		}
		*dst = users
		return nil
	}
}

func exposes(dst *[]forward.Expose) func(string) error {
	return func(s string) error {
		return each(s, func(s string) error {
			at, to, ok := strings.Cut(s, "=")
			if !ok {
				return fmt.Errorf("%q is not IP=HOST-IP", s)
			}
			e := forward.Expose{}
			var err error
			if e.At, err = parseAddr(at); err != nil {
				return err
			}
			if e.To, err = parseAddr(to); err != nil {
				return err
			}
			*dst = append(*dst, e)
			return nil
		})
	}
}

func destinations(dst *[]forward.Destinations) func(string) error {
	return func(s string) error {
		return each(s, func(s string) error {
			d, err := forward.ParseDestinations(s)
			if err == nil {
				*dst = append(*dst, d)
			}
			return err
		})
	}
}
