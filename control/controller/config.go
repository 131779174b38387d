package controller

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/validate/content"

	"corax/control/api/v1beta1"
)

// Defaults of Config.
const (
	DefaultNamespace      = "kube-system"
	DefaultLeaseNamespace = "corax-leases"
	DefaultDomainLabel    = "apps.openyurt.io/nodepool"
	DefaultClusterDomain  = "cluster.local"
)

// Config says how the controller works. The zero value is usable inside a cluster.
type Config struct {
	// Kubeconfig is the file that names the cluster; empty: the one that this
	// process runs in.
	Kubeconfig string
	// Namespace holds our Services, ConfigMaps and the leader's Lease; empty
	// means DefaultNamespace.
	Namespace string
	// LeaseNamespace holds the Leases of the agents; empty means
	// DefaultLeaseNamespace.
	LeaseNamespace string
	// DomainLabel is the node label whose value names the node's domain, and its
	// NodePool; empty means DefaultDomainLabel.
	DomainLabel string
	// ClusterDomain is the cluster's DNS domain, in the names of the proxy's Service;
	// empty means DefaultClusterDomain.
	ClusterDomain string
	// CloudDomains are values of DomainLabel that mean the cloud where there is
	// no NodePool API.
	CloudDomains []string
	// ExposeCloud is the exposeType that a new cloud Gateway gets. Later changes
	// are a person's.
	ExposeCloud string
	// ProxyReplicas and TunnelReplicas are the active endpoints wanted in each
	// Gateway that we make; zero means 1.
	ProxyReplicas, TunnelReplicas int
	// ClusterID is the last part of the names of cloud resources; empty: they
	// are not named.
	ClusterID string
	// TakeOver makes the controller act beside another one.
	TakeOver bool
	// Unbound says that nothing keeps a node from writing another's endpoint
	// entry, as before Kubernetes 1.30; every Gateway then has a condition.
	Unbound bool
	// Disable names the reconcilers that do not run; see Reconcilers.
	Disable []string
	// MetricsAddr and HealthAddr are where metrics and health are served; empty:
	// nowhere.
	MetricsAddr, HealthAddr string
	// LeaderElect lets several replicas run, one of which acts.
	LeaderElect bool
	// Version is what the user agent says.
	Version string
	// Log takes log lines; nil discards them.
	Log *slog.Logger
	// WrapTransport, when not nil, sees every request to the API server: tests
	// count them and make them fail.
	WrapTransport func(http.RoundTripper) http.RoundTripper
}

// withDefaults returns cfg without zero values that mean something else, or what
// is wrong with it.
func (cfg Config) withDefaults() (Config, error) {
	for _, d := range []struct {
		field *string
		value string
	}{
		{&cfg.Namespace, DefaultNamespace},
		{&cfg.LeaseNamespace, DefaultLeaseNamespace},
		{&cfg.DomainLabel, DefaultDomainLabel},
		{&cfg.ClusterDomain, DefaultClusterDomain},
	} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	if cfg.ProxyReplicas == 0 {
		cfg.ProxyReplicas = 1
	}
	if cfg.TunnelReplicas == 0 {
		cfg.TunnelReplicas = 1
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return cfg, cfg.check()
}

// Validate returns every mistake at once.
func (cfg Config) Validate() error {
	_, err := cfg.withDefaults()
	return err
}

func (cfg Config) check() error {
	var errs []error
	bad := func(name string, problems []string) {
		for _, p := range problems {
			errs = append(errs, fmt.Errorf("%s: %s", name, p))
		}
	}
	bad("namespace", content.IsDNS1123Label(cfg.Namespace))
	bad("lease namespace", content.IsDNS1123Label(cfg.LeaseNamespace))
	bad("cluster domain", content.IsDNS1123Subdomain(cfg.ClusterDomain))
	bad("domain label", content.IsLabelKey(cfg.DomainLabel))
	for _, n := range []int{cfg.ProxyReplicas, cfg.TunnelReplicas} {
		if n < 1 || n > v1beta1.MaxReplicas {
			bad("replicas", []string{fmt.Sprintf("%d is not from 1 to %d", n, v1beta1.MaxReplicas)})
		}
	}
	switch cfg.ExposeCloud {
	case v1beta1.ExposeNone, v1beta1.ExposePublicIP, v1beta1.ExposeLoadBalancer:
	default:
		bad("expose cloud", []string{fmt.Sprintf("%q is neither %s nor %s", cfg.ExposeCloud, v1beta1.ExposePublicIP, v1beta1.ExposeLoadBalancer)})
	}
	for _, name := range cfg.Disable {
		if !slices.Contains(Reconcilers(), name) {
			bad("disable", []string{fmt.Sprintf("there is no %q, only %s", name, strings.Join(Reconcilers(), ", "))})
		}
	}
	return errors.Join(errs...)
}
