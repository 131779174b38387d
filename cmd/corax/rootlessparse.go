package main

import (
	"fmt"
	"net/netip"
	"strings"

	"corax/proxy/forward"
)

// rootlessSettings are the settings of what stands in for a TUN.
func rootlessSettings(cfg *agentConfig) []*setting {
	return []*setting{
		{
			flag: "expose", key: "expose", arg: "IP=HOST-IP", list: true, parse: exposes(&cfg.Expose),
			usage: "without a TUN: connections of other domains to IP, one of this node's own subnets, go to HOST-IP, which may be loopback",
		},
		{
			flag: "proxy-protocol", key: "proxyProtocol", arg: "IP[/BITS][:PORT]", list: true, parse: destinations(&cfg.ProxyProtocol),
			usage: "without a TUN: begin TCP connections to these with a PROXY protocol header (version 2)",
		},
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
			d, err := parseDestinations(s)
			if err == nil {
				*dst = append(*dst, d)
			}
			return err
		})
	}
}

// parseDestinations reads 10.0.0.1, 10.0.0.0/24, 10.0.0.0/24:80, fd00::/64 or
// [fd00::]/64:80, [fd00::1]:80.
func parseDestinations(s string) (forward.Destinations, error) {
	fail := func() (forward.Destinations, error) {
		return forward.Destinations{}, fmt.Errorf("%q is not IP[/BITS][:PORT]", s)
	}
	d, rest := forward.Destinations{}, s
	if i := strings.LastIndexByte(s, ':'); i > 0 && (strings.HasPrefix(s, "[") && i > strings.IndexByte(s, ']') || strings.Count(s, ":") == 1) {
		if err := port(&d.Port)(s[i+1:]); err != nil {
			return fail()
		}
		rest = s[:i]
	}
	rest = strings.NewReplacer("[", "", "]", "").Replace(rest)
	var list []netip.Prefix
	if err := prefixes(&list)(rest); err != nil {
		return forward.Destinations{}, err
	}
	if len(list) != 1 {
		return fail()
	}
	d.Prefix = list[0]
	return d, nil
}
