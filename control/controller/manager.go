package controller

import (
	"fmt"
	"slices"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// name of the controller in user agents, events and field managers.
const name = "corax-controller"

// A reconciler adds itself to a manager. It asks guard before every write.
type reconciler struct {
	name string
	add  func(manager.Manager, Config, *guard) error
}

// reconcilers lists all, in the order in which an object passes them.
func reconcilers() []reconciler {
	return []reconciler{
		{"domains", addDomains},
		{"gateways", addGateways},
		{"expose", addExpose},
		{"names", addNames},
		{"settings", addSettings},
		{"certificates", addCertificates},
	}
}

// Reconcilers returns the names that Config.Disable takes.
func Reconcilers() []string {
	var names []string
	for _, r := range reconcilers() {
		names = append(names, r.name)
	}
	return names
}

// Bounds of the requests to the API server: 5,000 nodes are labelled within half
// a minute, and the server has room for others.
const (
	queriesPerSecond = 300
	queryBurst       = 600
)

// How the leader holds its Lease. A released one is found within retryPeriod and
// its jitter of 120 %.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 400 * time.Millisecond
	shutdown      = 5 * time.Second
)

// restConfig says how to reach the API server.
func restConfig(cfg Config) (*rest.Config, error) {
	var to *rest.Config
	var err error
	if cfg.Kubeconfig == "" {
		to, err = rest.InClusterConfig()
	} else {
		to, err = clientcmd.BuildConfigFromFlags("", cfg.Kubeconfig)
	}
	if err != nil {
		return nil, err
	}
	to.QPS, to.Burst = queriesPerSecond, queryBurst
	to.UserAgent = name + "/" + cfg.Version
	if cfg.WrapTransport != nil {
		to.Wrap(cfg.WrapTransport)
	}
	return to, nil
}

// newManager builds everything and starts nothing. Identity is who takes the
// leader's Lease. Reconcilers that may not read what they need are left out; r may be
// nil.
func newManager(cfg Config, to *rest.Config, identity string, r *rights) (manager.Manager, *guard, error) {
	options, err := managerOptions(cfg)
	if err != nil {
		return nil, nil, err
	}
	if r != nil {
		options.Cache.DefaultWatchErrorHandler = r.watchFailed
	}
	if cfg.LeaderElect {
		if options.LeaderElectionResourceLockInterface, err = newLock(to, cfg.Namespace, identity); err != nil {
			return nil, nil, err
		}
	}
	m, err := manager.New(to, options)
	if err != nil {
		return nil, nil, err
	}
	g := newGuard(m.GetAPIReader(), m.GetEventRecorder(name), cfg)
	for _, part := range reconcilers() {
		if slices.Contains(cfg.Disable, part.name) {
			cfg.Log.Info("a reconciler is off", "reconciler", part.name)
			continue
		}
		if r.lacks(part.name) != "" {
			continue
		}
		if err := part.add(m, cfg, g); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return m, g, nil
}

func managerOptions(cfg Config) (manager.Options, error) {
	scheme, err := newScheme()
	if err != nil {
		return manager.Options{}, err
	}
	lease, renew, retry, grace := leaseDuration, renewDeadline, retryPeriod, shutdown
	yes := true
	return manager.Options{
		Scheme:    scheme,
		Cache:     cacheOptions(cfg),
		NewClient: newCountingClient,
		// NodePools and the like are read from the cache too.
		Client:  client.Options{FieldOwner: name, Cache: &client.CacheOptions{Unstructured: true}},
		Logger:  logr.FromSlogHandler(cfg.Log.Handler()),
		Metrics: metricsserver.Options{BindAddress: "0"}, // see meter

		GracefulShutdownTimeout: &grace,

		LeaderElection:                cfg.LeaderElect,
		LeaderElectionID:              name,
		LeaderElectionNamespace:       cfg.Namespace,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 &lease,
		RenewDeadline:                 &renew,
		RetryPeriod:                   &retry,

		// A replica that waits has its caches filled. Names need not be unique
		// in the process: tests run two controllers in one.
		Controller: config.Controller{EnableWarmup: &yes, SkipNameValidation: &yes},
	}, nil
}
