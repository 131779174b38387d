//go:build !nokube

package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"corax/control/api/v1beta1"
	"corax/control/controller"
)

// controllerConfig is everything that an operator decides about the controller.
type controllerConfig struct {
	controller.Config

	metrics, health netip.AddrPort
	level           slog.Level
	format          logFormat
}

// fill sets what is derived from other settings.
func (c *controllerConfig) fill() {
	c.Version = versionText()
	c.MetricsAddr, c.HealthAddr = listenAddr(c.metrics), listenAddr(c.health)
}

// listenAddr is where to listen; no address means all, no port nowhere.
func listenAddr(a netip.AddrPort) string {
	if a.Port() == 0 {
		return ""
	}
	host := ""
	if a.Addr().IsValid() {
		host = a.Addr().String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(a.Port())))
}

// clusterSettings say which cluster, and how to log.
func clusterSettings(c *controllerConfig) []*setting {
	return []*setting{
		{
			flag: "kubeconfig", arg: "FILE", parse: text(&c.Kubeconfig),
			usage: "the cluster of this kubeconfig (default: the one that this Pod runs in)",
		},
		{
			flag: "namespace", def: controller.DefaultNamespace, arg: "NAME", parse: text(&c.Namespace),
			usage: "namespace of raven-cfg, of the Services and of the leader's Lease",
		},
		{
			flag: "lease-namespace", def: controller.DefaultLeaseNamespace, arg: "NAME", parse: text(&c.LeaseNamespace),
			usage: "namespace of the agents' Leases",
		},
		{
			flag: "log-level", def: "info", arg: "debug|info|warn|error", parse: level(&c.level),
			usage: "least level that is logged",
		},
		{
			flag: "log-format", def: string(logText), arg: "text|json", parse: oneOf(&c.format, logText, logJSON),
			usage: "form of the log lines on standard error",
		},
	}
}

// controllerSettings say how the controller works.
func controllerSettings(c *controllerConfig) []*setting {
	return []*setting{
		{
			flag: "leader-elect", def: "true", arg: "bool", parse: boolean(&c.LeaderElect),
			usage: "act only while holding the leader's Lease",
		},
		{
			flag: "domain-label", def: controller.DefaultDomainLabel, arg: "LABEL", parse: text(&c.DomainLabel),
			usage: "node label whose value names the node's domain and NodePool",
		},
		{
			flag: "cluster-domain", def: controller.DefaultClusterDomain, arg: "DOMAIN", parse: dnsDomain(&c.ClusterDomain),
			usage: "the cluster's DNS domain, in the names of the proxy's Service",
		},
		{
			flag: "cloud-domains", arg: "VALUE", list: true, parse: words(&c.CloudDomains),
			usage: "values of that label that mean the cloud, where there are no NodePools; may be repeated",
		},
		{
			flag: "expose-cloud", arg: v1beta1.ExposeLoadBalancer + "|" + v1beta1.ExposePublicIP,
			parse: oneOf(&c.ExposeCloud, v1beta1.ExposeLoadBalancer, v1beta1.ExposePublicIP),
			usage: "exposeType of a cloud Gateway when it is made (default: none)",
		},
		{
			flag: "tunnel-replicas", def: "1", arg: "N", parse: replicas(&c.TunnelReplicas),
			usage: "active tunnel endpoints wanted in each Gateway",
		},
		{
			flag: "proxy-replicas", def: "1", arg: "N", parse: replicas(&c.ProxyReplicas),
			usage: "active proxy endpoints wanted in each Gateway",
		},
		{
			flag: "cluster-id", arg: "ID", parse: text(&c.ClusterID),
			usage: "last part of the names of cloud resources (default: they are not named)",
		},
		{
			flag: "take-over", def: "false", arg: "bool", parse: boolean(&c.TakeOver),
			usage: "act also on what yurt-manager writes",
		},
		{
			flag: "identity-insecure", def: "false", arg: "bool", parse: boolean(&c.Unbound),
			usage: "say on every Gateway that nothing binds endpoint entries to their nodes (Kubernetes before 1.30)",
		},
		{
			flag: "disable", arg: strings.Join(controller.Reconcilers(), "|"), list: true, parse: words(&c.Disable),
			usage: "part that does not run; may be repeated",
		},
		{
			flag: "metrics-addr", def: ":10293", arg: "IP:PORT", parse: listener(&c.metrics),
			usage: "Prometheus metrics; without IP: on all addresses; off: nowhere",
		},
		{
			flag: "health-addr", def: ":10294", arg: "IP:PORT", parse: listener(&c.health),
			usage: "/healthz and /readyz, likewise",
		},
	}
}

// words parses a list of texts, which a flag may hold between commas.
func words(dst *[]string) func(string) error {
	return func(s string) error {
		return each(s, func(s string) error {
			var word string
			err := text(&word)(s)
			if err == nil {
				*dst = append(*dst, word)
			}
			return err
		})
	}
}

func replicas(dst *int) func(string) error {
	return func(s string) error {
		n, err := number(s, 1, v1beta1.MaxReplicas)
		if err == nil {
			*dst = int(n)
		}
		return err
	}
}

func duration(dst *time.Duration) func(string) error {
	return func(s string) error {
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 {
			return fmt.Errorf("%q is not a duration such as 90s", s)
		}
		*dst = d
		return nil
	}
}
