package main

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
)

// frontConfig is what an operator decides about the fronts of proxy mode, beside
// where TLS and HTTP are served. They are served only on nodes that the Gateway
// objects make fronts.
type frontConfig struct {
	// ConnectAddr is served when the three files are given.
	ConnectAddr                              netip.AddrPort
	ConnectCert, ConnectKey, ConnectClientCA string         // PEM files
	ConnectNames                             []string       // of clients; empty: whom ConnectClientCA verifies
	ConnectSocket                            string         // unix socket; empty: none
	ConnectCluster                           []netip.Prefix // of Services and Pods, dialled by this host; empty: none
	// KubeletCA is a PEM file that verifies nodes where TLS ends at the front;
	// empty: the cluster's.
	KubeletCA string
	// Audiences are whom the tokens of callers must be meant for; empty: the API
	// server.
	Audiences []string
	// Hosts is where the names of nodes are written on nodes of the control plane;
	// hostsAuto: in the state directory; hostsOff: nowhere.
	Hosts string
}

// Words in the place of a file.
const (
	hostsAuto = "auto"
	hostsOff  = "off"
)

// proxySettings are the settings of the fronts.
func proxySettings(cfg *agentConfig) []*setting {
	f := &cfg.Front
	return []*setting{
		{
			flag: "proxy-tls-addr", key: "proxyTLSAddr", def: ":10281", arg: "IP:PORT", parse: listener(&cfg.ProxyTLSAddr),
			usage: "host access by node name over TLS, likewise; further TLS ports are on the same IP",
		},
		{
			flag: "proxy-http-addr", key: "proxyHTTPAddr", def: ":10282", arg: "IP:PORT", parse: listener(&cfg.ProxyHTTPAddr),
			usage: "host access by node name over plain HTTP, likewise; without a cluster that knows callers only on loopback",
		},
		{
			flag: "proxy-connect-addr", key: "proxyConnectAddr", def: ":10295", arg: "IP:PORT", parse: listener(&f.ConnectAddr),
			usage: "host access by HTTP CONNECT with client certificates, likewise; needs the next three",
		},
		{
			flag: "proxy-connect-cert", key: "proxyConnectCert", arg: "FILE", parse: text(&f.ConnectCert),
			usage: "certificate of HTTP CONNECT, PEM; read again when it changes",
		},
		{
			flag: "proxy-connect-key", key: "proxyConnectKey", arg: "FILE", parse: text(&f.ConnectKey),
			usage: "its private key, PEM",
		},
		{
			flag: "proxy-connect-client-ca", key: "proxyConnectClientCA", arg: "FILE", parse: text(&f.ConnectClientCA),
			usage: "authorities of the clients that may CONNECT, PEM",
		},
		{
			flag: "proxy-connect-client", key: "proxyConnectClients", arg: "NAME", list: true, parse: listOf(&f.ConnectNames),
			usage: "common name or DNS name of a client that may CONNECT (default: whoever has a certificate of these authorities)",
		},
		{
			flag: "proxy-connect-socket", key: "proxyConnectSocket", arg: "FILE", parse: socketPath(&f.ConnectSocket),
			usage: "unix socket for HTTP CONNECT, for its owner and root",
		},
		{
			flag: "proxy-connect-cluster", key: "proxyConnectCluster", arg: "CIDR", list: true, parse: prefixes(&f.ConnectCluster),
			usage: "addresses of Services and Pods that CONNECT may ask for beside nodes, as an API server does for webhooks and aggregated APIs",
		},
		{
			flag: "kubelet-ca", key: "kubeletCA", arg: "FILE", parse: text(&f.KubeletCA),
			usage: "authorities of kubelets' serving certificates, PEM, for requests whose TLS ends here (default: those of the cluster)",
		},
		{
			flag: "proxy-audience", key: "proxyAudiences", arg: "NAME", list: true, parse: listOf(&f.Audiences),
			usage: "whom the tokens of callers must be meant for (default: the API server)",
		},
		{
			flag: "hosts-file", key: "hostsFile", def: hostsAuto, arg: "FILE", parse: text(&f.Hosts),
			usage: "where the names of edge nodes are written for an API server on this node; auto: hosts in the state directory; off: nowhere",
		},
	}
}

// listOf parses texts that may come by commas.
func listOf(dst *[]string) func(string) error {
	return func(s string) error {
		return each(s, func(s string) error {
			if s == "" {
				return errors.New("empty")
			}
			*dst = append(*dst, s)
			return nil
		})
	}
}

// connects reports whether CONNECT is served over TCP.
func (f *frontConfig) connects() bool {
	return f.ConnectAddr.IsValid() && f.ConnectCert != ""
}

// validate checks what belongs together.
func (f *frontConfig) validate() []error {
	var errs []error
	n := 0
	for _, s := range []string{f.ConnectCert, f.ConnectKey, f.ConnectClientCA} {
		if s != "" {
			n++
		}
	}
	if n != 0 && n != 3 {
		errs = append(errs, errors.New("--proxy-connect-cert, --proxy-connect-key and --proxy-connect-client-ca are given together or not at all"))
	}
	if len(f.ConnectCluster) > 0 && f.ConnectCert != "" && len(f.ConnectNames) == 0 {
		errs = append(errs, errors.New("--proxy-connect-cluster needs --proxy-connect-client: else every kubelet with a certificate of these authorities could reach all Services and Pods"))
	}
	for flag, path := range map[string]string{"--proxy-connect-socket": f.ConnectSocket, "--hosts-file": f.Hosts} {
		if path != "" && path != hostsAuto && path != hostsOff && !filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("%s: %q is not absolute", flag, path))
		}
	}
	return errs
}

// hostsFile returns where the names of nodes are written; empty: nowhere.
func (c *agentConfig) hostsFile() string {
	switch c.Front.Hosts {
	case hostsAuto:
		return filepath.Join(c.StateDir, "hosts")
	case hostsOff, "":
		return ""
	default:
		return c.Front.Hosts
	}
}
