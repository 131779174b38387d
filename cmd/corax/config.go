package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"regexp"
	"time"

	"corax/dataplane/key"
	"corax/proxy/forward"
	"corax/proxy/outbound"
)

// agentConfig is everything that an operator decides about one agent: flags, the
// environment and one file, parsed once. What concerns peers comes from the
// Gateway objects.
type agentConfig struct {
	NodeName string
	NodeIP   netip.Addr // VXLAN underlay address; the other addresses default to it

	Kubeconfig string // file; empty: not given
	Gateways   string // directory of Gateway objects
	InCluster  bool   // neither, and this is a pod of a cluster

	ClusterDomain string // of the cluster's DNS, in the names of the proxy's Service

	Preset  preset
	Unbound bool // nothing keeps a node from writing another's entry

	StateDir string
	Socket   string // of the local API

	Datapath    datapath
	Netns       string // with datapath userns: whose network namespace; a process or a file
	TunnelPort  uint16 // UDP: WireGuard, probes, relay frames
	TLSPort     uint16 // TCP fallback
	VXLANPort   uint16 // UDP
	VNI         uint32 // 24 bits
	TUNName     string
	HostSources []netip.Addr   // at most one per family; empty: the agent looks for them
	Preshared   key.Preshared  // zero: none
	STUNServers []hostPort     // beside the hubs
	TakeOver    bool           // start although a Raven agent left its state, and remove that
	UAPI        bool           // open WireGuard's control socket
	Allow       []netip.Prefix // sources that may speak to a hub's tunnel port and TLS fallback; empty: as the source of the Gateway objects says
	KeyRotation time.Duration  // age at which the key is changed; zero: never
	Tunnel      *bool          // tunnel mode; nil: as the source of the Gateway objects says
	Proxy       *bool          // proxy mode; nil: as above

	MetricsAddr   netip.AddrPort
	HealthAddr    netip.AddrPort
	ProxyTLSAddr  netip.AddrPort
	ProxyHTTPAddr netip.AddrPort
	Front         frontConfig

	Expose        []forward.Expose       // without a TUN: addresses that stand for other hosts
	ProxyProtocol []forward.Destinations // likewise: who is told the real source
	SOCKSAddr     doorAt                 // zero: nowhere
	HTTPProxyAddr doorAt                 // likewise
	SOCKSUsers    map[string]string      // passwords by user; empty: nobody is asked
	ClusterDNS    netip.AddrPort         // zero: names are not looked up
	Forwards      []outbound.Map         // from the start
	ServiceCIDRs  []netip.Prefix         // of Services that programs of this node reach; empty: none

	MemoryProfile profileName

	LogLevel  slog.Level
	LogFormat logFormat
}

// datapath is how this node's own packets reach the agent.
type datapath string

// The datapaths.
const (
	datapathAuto     datapath = "auto"     // TUN where it works, else netstack
	datapathTUN      datapath = "tun"      // a TUN in the host's network namespace
	datapathUserns   datapath = "userns"   // a TUN in the network namespace of a child user namespace
	datapathNetstack datapath = "netstack" // no TUN
)

// preset is whose controllers the agent works beside.
type preset string

// The presets.
const (
	presetStandalone preset = "standalone" // corax controller
	presetOpenYurt   preset = "openyurt"   // yurt-manager
)

// nodeNameForm is that of a Kubernetes object name: the node's name is looked up
// in Gateway objects and stands in file names and labels.
var nodeNameForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

// Validate reports every problem that c has although each value could be parsed.
// Fields that are missing because they could not are no problem here.
func (c *agentConfig) Validate() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if c.NodeName != "" && (len(c.NodeName) > 253 || !nodeNameForm.MatchString(c.NodeName)) {
		add("--node-name: %q is not the name of a node", c.NodeName)
	}
	if c.NodeIP.IsUnspecified() || c.NodeIP.IsMulticast() {
		add("--node-ip: %v is not the address of a node", c.NodeIP)
	}
	if c.TunnelPort != 0 && c.TunnelPort == c.VXLANPort {
		add("--tunnel-port and --vxlan-port are both UDP %d", c.TunnelPort)
	}
	if len(c.HostSources) > 2 || len(c.HostSources) == 2 && c.HostSources[0].Is4() == c.HostSources[1].Is4() {
		add("--host-source: more than one address of a family")
	}
	if len(c.ServiceCIDRs) > 0 && c.Gateways != "" {
		add("--service-cidr needs a cluster: with --gateways nobody says what is behind the address of a Service")
	}
	if err := c.validateUserns(); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, c.validateSource()...)
	errs = append(errs, c.validateListeners()...)
	errs = append(errs, c.Front.validate()...)
	return errors.Join(errs...)
}

// validateSource checks where the Gateway objects come from.
func (c *agentConfig) validateSource() []error {
	switch {
	case c.Kubeconfig != "" && c.Gateways != "":
		return []error{errors.New("--kubeconfig and --gateways exclude each other")}
	case c.Kubeconfig == "" && c.Gateways == "" && !c.InCluster:
		return []error{errors.New("neither --kubeconfig nor --gateways is set, and this is no pod of a cluster ($KUBERNETES_SERVICE_HOST is not set)")}
	}
	return nil
}

// validateListeners reports TCP addresses that cannot all be bound.
func (c *agentConfig) validateListeners() []error {
	listeners := []struct {
		flag string
		addr netip.AddrPort
	}{
		{"--metrics-addr", c.MetricsAddr},
		{"--health-addr", c.HealthAddr},
		{"--proxy-tls-addr", c.ProxyTLSAddr},
		{"--proxy-http-addr", c.ProxyHTTPAddr},
		{"--proxy-connect-addr", c.Front.ConnectAddr},
		{"--tls-port", netip.AddrPortFrom(netip.IPv6Unspecified(), c.TLSPort)},
	}
	var errs []error
	for i, a := range listeners {
		for _, b := range listeners[:i] {
			if collide(a.addr, b.addr) {
				errs = append(errs, fmt.Errorf("%s and %s are both TCP %d", b.flag, a.flag, a.addr.Port()))
			}
		}
	}
	return errs
}

// collide reports whether two TCP listeners would take the same port. An
// unspecified address is every address.
func collide(a, b netip.AddrPort) bool {
	if !a.IsValid() || !b.IsValid() || a.Port() != b.Port() || a.Port() == 0 {
		return false
	}
	return a.Addr() == b.Addr() || a.Addr().IsUnspecified() || b.Addr().IsUnspecified()
}

// fillAddrs gives the node's address to every listener that has only a port.
func (c *agentConfig) fillAddrs() {
	for _, a := range []*netip.AddrPort{&c.MetricsAddr, &c.HealthAddr, &c.ProxyTLSAddr, &c.ProxyHTTPAddr, &c.Front.ConnectAddr} {
		if a.Port() != 0 && !a.Addr().IsValid() && c.NodeIP.IsValid() {
			*a = netip.AddrPortFrom(c.NodeIP, a.Port())
		}
	}
}

// hostPort is a server given by name or address.
type hostPort struct {
	Host string
	Port uint16
}

// Defaults that the other commands share.
const (
	defaultStateDir = "/var/lib/corax"
	defaultSocket   = "/run/corax/agent.sock"
)

func datapaths() []datapath {
	return []datapath{datapathAuto, datapathTUN, datapathUserns, datapathNetstack}
}

// parseAgentConfig makes the configuration of what flags gave to settings, of the
// file (when there is one) and of the environment. It reports every mistake of
// all of them.
func parseAgentConfig(cfg *agentConfig, settings []*setting, file string, getenv func(string) string, readFile func(string) ([]byte, error)) error {
	var errs []error
	if file != "" {
		data, err := readFile(file)
		if err == nil {
			err = giveFile(settings, file, data)
		}
		errs = append(errs, err)
	}
	for _, s := range settings {
		if s.env != "" && getenv(s.env) != "" {
			s.give(fromEnv, "$"+s.env, getenv(s.env))
		}
		errs = append(errs, s.resolve())
	}
	presharedFromEnv(cfg, getenv)
	cfg.InCluster = cfg.Kubeconfig == "" && cfg.Gateways == "" && getenv("KUBERNETES_SERVICE_HOST") != ""
	cfg.fillAddrs()
	return errors.Join(append(errs, cfg.Validate())...)
}
