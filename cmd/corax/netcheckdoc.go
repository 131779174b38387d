package main

import "strings"

// Netcheck is what an agent finds out about its own network: GET /v1/netcheck
// and `corax netcheck -o json`. Its JSON keys are stable.
type Netcheck struct {
	Node        string              `json:"node"`
	Gateway     string              `json:"gateway"` // empty: in none
	UDPBlocked  bool                `json:"udpBlocked"`
	IPv4        NetcheckFamily      `json:"ipv4"`
	IPv6        NetcheckFamily      `json:"ipv6"`
	Hubs        []NetcheckServer    `json:"hubs"`    // each address of each hub that was asked
	Servers     []NetcheckServer    `json:"servers"` // configured STUN servers
	PortMapping NetcheckPortMapping `json:"portMapping"`
	TLS         []NetcheckTLS       `json:"tls"` // the hubs' ports for peers without UDP
	MTU         int                 `json:"mtu"` // inner, in bytes, to the hubs; 0: not measured
}

// NetcheckFamily is what the servers saw over one IP version.
type NetcheckFamily struct {
	// Mapping and Filtering are behaviours in the words of RFC 4787, such as
	// "endpoint-independent"; "no NAT"; empty or "unknown": not known.
	Mapping         string   `json:"mapping"`
	Filtering       string   `json:"filtering"`
	Public          []string `json:"public"` // IP:port of the tunnel socket, as the servers saw it
	PortPreserved   bool     `json:"portPreserved"`
	PortStep        int      `json:"portStep"`        // between successive mappings; 0: not predictable, or not needed
	LifetimeSeconds int      `json:"lifetimeSeconds"` // a mapping lives this long or longer without packets; 0: not known
	Hairpin         string   `json:"hairpin"`         // yes, no or unknown
	Blocked         bool     `json:"blocked"`         // servers were asked and none answered
}

// NetcheckServer is a hub or a STUN server that was asked.
type NetcheckServer struct {
	Gateway   string  `json:"gateway"` // empty: a STUN server
	Node      string  `json:"node"`
	Address   string  `json:"address"` // IP:port
	Answered  bool    `json:"answered"`
	RTTMillis float64 `json:"rttMillis"` // 0: not measured
	Mapped    string  `json:"mapped"`    // IP:port that it saw; empty: none
	MTU       int     `json:"mtu"`       // inner, in bytes, of the path to a hub; 0: not measured
}

// NetcheckPortMapping is what the default router can do.
type NetcheckPortMapping struct {
	Router    string `json:"router"` // IP; empty: there is none
	PCP       bool   `json:"pcp"`
	NATPMP    bool   `json:"natpmp"`
	UPnP      bool   `json:"upnp"`
	External  string `json:"external"`  // the router's IP on its other side; empty: it did not tell
	DoubleNAT bool   `json:"doubleNAT"` // External is no public address
	Device    string `json:"device"`    // what the UPnP device calls itself; untrusted
	Mapped    string `json:"mapped"`    // IP:port that is mapped now; empty: none
	Text      string `json:"text"`      // all of it in one sentence
}

// NetcheckTLS is whether a hub's TCP port for peers without UDP can be reached.
type NetcheckTLS struct {
	Hub       string  `json:"hub"`     // its node
	Address   string  `json:"address"` // host:port
	Open      bool    `json:"open"`
	RTTMillis float64 `json:"rttMillis"` // of the handshake; 0: not measured
	Error     string  `json:"error"`     // why it is not open
}

// complete makes every list non-nil, so that readers find [], not null, and takes
// from the behaviours the noun that their key says already.
func (n Netcheck) complete() Netcheck {
	for _, f := range []*NetcheckFamily{&n.IPv4, &n.IPv6} {
		f.Mapping = strings.TrimSuffix(f.Mapping, " mapping")
		f.Filtering = strings.TrimSuffix(f.Filtering, " filtering")
		f.Public = orEmpty(f.Public)
	}
	n.Hubs, n.Servers, n.TLS = orEmpty(n.Hubs), orEmpty(n.Servers), orEmpty(n.TLS)
	return n
}
