package main

import (
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// ravenFlag is a flag of Raven's agent. All are accepted, hidden, so that a
// manifest written for Raven starts this agent too.
type ravenFlag struct {
	name  string
	short string
	to    string // our flag that means the same
	bool  bool
	// text translates the value for our flag; nil means that it is the same.
	text func(string) string
	// why says, for a flag that is ignored, why it does not matter here.
	why string
}

func ravenFlags() []ravenFlag {
	certs := "certificates are handled by the agent itself"
	return []ravenFlag{
		{name: "vpn-bind-port", to: "tunnel-port", text: afterColon},
		{name: "health-probe-addr", to: "health-addr"},
		{name: "proxy-metric-bind-addr", to: "metrics-addr"},
		{name: "proxy-internal-secure-addr", to: "proxy-tls-addr"},
		{name: "proxy-internal-insecure-addr", to: "proxy-http-addr"},
		{name: "proxy-external-addr", to: "tls-port", text: afterColon},
		{name: "v", short: "v", to: "log-level", text: verbosity},

		{name: "vpn-driver", why: "the tunnels are always WireGuard"},
		{name: "route-driver", why: "traffic inside a domain is always VXLAN"},
		{name: "forward-node-ip", bool: true, why: "node addresses are not carried by tunnels"},
		{name: "nat-traversal", bool: true, why: "it is always on where it is needed"},
		{name: "keep-alive-interval", why: "the agent chooses it"},
		{name: "keep-alive-timeout", why: "the agent chooses it"},
		{name: "customized-mac-prefix", why: "it is aa:0f on every node"},
		{name: "sync-raven-rules", bool: true, why: "rules are always kept"},
		{name: "sync-raven-rules-period", why: "changes apply at once"},
		{name: "metric-bind-addr", why: "metrics are at --metrics-addr"},
		{name: "client-cert-dir", why: certs},
		{name: "server-cert-dir", why: certs},
		{name: "server-cert-dns-names", why: certs},
		{name: "server-cert-ips", why: certs},
		{name: "feature-gates", why: "there are none"},
	}
}

// ravenUse is a flag of Raven's that was given and does nothing.
type ravenUse struct{ flag, why string }

// registerRaven adds the hidden flags. A mapped one is offered to its setting;
// uses returns the ignored ones that were given.
func registerRaven(flags *pflag.FlagSet, settings []*setting) (uses func() []ravenUse) {
	given := flags.Changed
	var ignored []ravenFlag
	for _, r := range ravenFlags() {
		set := func(string) error { return nil }
		if r.to == "" {
			ignored = append(ignored, r)
		} else if s := find(settings, r.to, false); s != nil {
			set = func(value string) error {
				if r.text != nil {
					value = r.text(value)
				}
				s.give(fromRaven, "--"+r.name, value)
				return nil
			}
		}
		f := flags.VarPF(ravenValue{set, r.bool}, r.name, r.short, "flag of Raven's agent")
		f.Hidden = true
		if r.bool {
			f.NoOptDefVal = "true"
		}
	}
	return func() []ravenUse {
		var uses []ravenUse
		for _, r := range ignored {
			if given(r.name) {
				uses = append(uses, ravenUse{"--" + r.name, r.why})
			}
		}
		return uses
	}
}

type ravenValue struct {
	set  func(string) error
	bool bool
}

func (v ravenValue) Set(s string) error { return v.set(s) }
func (v ravenValue) String() string     { return "" }
func (v ravenValue) Type() string {
	if v.bool {
		return "bool"
	}
	return "string"
}

// afterColon takes the port of Raven's ":4500" and "IP:4500" forms: here it is
// always that of every address.
func afterColon(s string) string { return s[strings.LastIndexByte(s, ':')+1:] }

// verbosity translates klog's numbers, of which 4 and more mean debugging.
func verbosity(s string) string {
	n, err := strconv.Atoi(s)
	switch {
	case err != nil:
		return s
	case n >= 4:
		return "debug"
	default:
		return "info"
	}
}
