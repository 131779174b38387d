package main

import (
	"fmt"
	"slices"

	"corax/dataplane/key"
)

// agentSettings lists what can be set of an agent; parsing fills cfg.
func agentSettings(cfg *agentConfig, readFile func(string) ([]byte, error)) []*setting {
	return slices.Concat(
		nodeSettings(cfg, readFile), rootlessSettings(cfg, readFile), serviceSettings(cfg), proxySettings(cfg), processSettings(cfg),
	)
}

// nodeSettings are the settings of this node and its datapath.
func nodeSettings(cfg *agentConfig, readFile func(string) ([]byte, error)) []*setting {
	return []*setting{
		{
			flag: "node-name", key: "nodeName", env: "NODE_NAME", must: true, arg: "NAME", parse: text(&cfg.NodeName),
			usage: "name of this node, as in the Gateway objects ($NODE_NAME)",
		},
		{
			flag: "node-ip", key: "nodeIP", env: "NODE_IP", must: true, arg: "IP", parse: addr(&cfg.NodeIP),
			usage: "address of this node in its own network ($NODE_IP)",
		},
		{
			flag: "kubeconfig", key: "kubeconfig", arg: "FILE", parse: text(&cfg.Kubeconfig),
			usage: "read Gateway objects from the cluster of this kubeconfig (default: in a pod, that of the pod)",
		},
		{
			flag: "gateways", key: "gateways", arg: "DIR", parse: text(&cfg.Gateways),
			usage: "read Gateway objects from the YAML files of this directory, without a cluster",
		},
		{
			flag: "preset", key: "preset", def: string(presetStandalone), arg: "standalone|openyurt", parse: oneOf(&cfg.Preset, presetStandalone, presetOpenYurt),
			usage: "whose controllers make the Gateway objects: corax controller's, or yurt-manager's",
		},
		{
			flag: "identity-insecure", key: "identityInsecure", def: "false", arg: "bool", parse: boolean(&cfg.Unbound),
			usage: "say in status that nothing binds endpoint entries to their nodes (Kubernetes before 1.30)",
		},
		{
			flag: "cluster-domain", key: "clusterDomain", def: "cluster.local", arg: "DOMAIN", parse: dnsDomain(&cfg.ClusterDomain),
			usage: "the cluster's DNS domain, in the names of the proxy's Service",
		},
		{
			flag: "state-dir", key: "stateDir", def: defaultStateDir, arg: "DIR", parse: text(&cfg.StateDir),
			usage: "private key and caches; only the agent may access it",
		},
		{
			flag: "socket", key: "socket", def: defaultSocket, arg: "FILE", parse: socketPath(&cfg.Socket),
			usage: "local API, for its owner and root",
		},
		{
			flag: "datapath", key: "datapath", def: string(datapathAuto), arg: "auto|tun|userns|netstack", parse: oneOf(&cfg.Datapath, datapaths()...),
			usage: "how the packets of this node reach the agent; auto: a TUN where it works, else netstack",
		},
		{
			flag: "netns", key: "netns", arg: "PID|PATH", parse: namespace(&cfg.Netns),
			usage: "with --datapath userns: the network namespace in which the TUN is to be, by a process in it or by a file; it belongs to a child user namespace of the same user",
		},
		{
			flag: "tunnel-port", key: "tunnelPort", def: "4500", arg: "PORT", parse: port(&cfg.TunnelPort),
			usage: "UDP port of the tunnels",
		},
		{
			flag: "tls-port", key: "tlsPort", def: "10280", arg: "PORT", parse: port(&cfg.TLSPort),
			usage: "TCP port of the fallback over TLS",
		},
		{
			flag: "vxlan-port", key: "vxlanPort", def: "4472", arg: "PORT", parse: port(&cfg.VXLANPort),
			usage: "UDP port of VXLAN within the domain",
		},
		{
			flag: "vni", key: "vni", def: "200", arg: "N", parse: vni(&cfg.VNI),
			usage: "VXLAN network identifier",
		},
		{
			flag: "tun-name", key: "tunName", def: "corax0", arg: "NAME", parse: deviceName(&cfg.TUNName),
			usage: "name of the TUN",
		},
		{
			flag: "host-source", key: "hostSource", arg: "IP", list: true, parse: addrs(&cfg.HostSources),
			usage: "address inside this node's own subnets that host programs send from, one per family (default: found)",
		},
		{
			flag: "psk-file", key: "pskFile", arg: "FILE", parse: presharedFile(&cfg.Preshared, readFile),
			usage: "secret that all agents share, mixed into every handshake ($VPN_CONNECTION_PSK holds the secret itself)",
		},
		{
			flag: "stun-server", key: "stunServers", arg: "HOST:PORT", list: true, parse: servers(&cfg.STUNServers),
			usage: "STUN server beside the hubs; may be repeated",
		},
	}
}

// serviceSettings are the settings of what the agent tells of itself.
func serviceSettings(cfg *agentConfig) []*setting {
	return []*setting{
		{
			flag: "metrics-addr", key: "metricsAddr", def: ":10283", arg: "IP:PORT", parse: listener(&cfg.MetricsAddr),
			usage: "Prometheus metrics; without IP: on the node's address; off: nowhere",
		},
		{
			flag: "health-addr", key: "healthAddr", def: ":10284", arg: "IP:PORT", parse: listener(&cfg.HealthAddr),
			usage: "/healthz and /readyz, likewise",
		},
	}
}

// processSettings are the settings of the process, and those that only the file
// has.
func processSettings(cfg *agentConfig) []*setting {
	return []*setting{
		{
			flag: "take-over", key: "takeOver", def: "false", arg: "bool", parse: boolean(&cfg.TakeOver),
			usage: "start although a Raven agent left its state, and remove that",
		},
		{
			flag: "memory-profile", key: "memoryProfile", def: string(profileAuto), arg: "auto|32|64|256|full", parse: oneOf(&cfg.MemoryProfile, profileNames()...),
			usage: "megabytes that queues and buffers are made for; auto: what the control group or the machine has",
		},
		{
			flag: "log-level", key: "logLevel", def: "info", arg: "debug|info|warn|error", parse: level(&cfg.LogLevel),
			usage: "least level that is logged",
		},
		{
			flag: "log-format", key: "logFormat", def: string(logText), arg: "text|json", parse: oneOf(&cfg.LogFormat, logText, logJSON),
			usage: "form of the log lines on standard error",
		},
		{
			flag: "uapi", key: "uapi", def: "true", arg: "bool", parse: boolean(&cfg.UAPI),
			usage: "open WireGuard's control socket, for wg show",
		},
		{key: "allowSources", list: true, parse: prefixes(&cfg.Allow)},
		{key: "keyRotation", arg: "DURATION", parse: period(&cfg.KeyRotation)},
		{key: "enableTunnel", parse: switched(&cfg.Tunnel)},
		{key: "enableProxy", parse: switched(&cfg.Proxy)},
	}
}

// dnsDomain parses a DNS domain, without a dot at its end.
func dnsDomain(dst *string) func(string) error {
	return func(s string) error {
		if !nodeNameForm.MatchString(s) || len(s) > 200 {
			return fmt.Errorf("%q is not a DNS domain such as cluster.local", s)
		}
		*dst = s
		return nil
	}
}

// presharedEnv is the environment variable that Raven's agent reads the secret
// from. A file is better, since other programs can read an environment; so it
// has no flag, and a file wins.
const presharedEnv = "VPN_CONNECTION_PSK"

// presharedFromEnv uses the variable when no file gave a secret.
func presharedFromEnv(cfg *agentConfig, getenv func(string) string) {
	if cfg.Preshared.IsZero() {
		cfg.Preshared = key.PresharedFromSecret([]byte(getenv(presharedEnv)))
	}
}
