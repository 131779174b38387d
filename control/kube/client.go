package kube

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"

	"corax/control"
	"corax/control/api/v1beta1"
	"corax/dataplane"
)

// Names that a Config leaves empty.
const (
	defaultUserAgent      = "corax-agent"
	defaultNamespace      = "kube-system"
	defaultLeaseNamespace = "corax-leases"
)

// Config is what a Client needs.
type Config struct {
	// Kubeconfig is a file that says how to reach the API server; empty means
	// the service account of the pod that this runs in.
	Kubeconfig string
	// Node is the name of this node; required.
	Node string
	// StateDir is a directory of ours alone, where what was known last is kept;
	// empty means that nothing is kept.
	StateDir string
	// UserAgent is how requests name this program; caching proxies go by it.
	// Empty means "corax-agent".
	UserAgent string
	// Namespace is that of the ConfigMap raven-cfg; empty means "kube-system".
	Namespace string
	// LeaseNamespace is that of the Leases; empty means "corax-leases".
	LeaseNamespace string
	// ClusterDomain is the cluster's DNS domain, in the names of the proxy's Service;
	// empty means "cluster.local".
	ClusterDomain string
	// Balancers says that no controller of ours writes the address of a load
	// balancer into this node's entries, and that the Client does: it takes it from
	// the Services in Namespace that are labelled as this node's tunnel.
	Balancers bool
	// Services has the Services of the cluster and their endpoints read, for
	// [Client.Endpoints].
	Services bool
	// HostsFile is where the names of nodes are written on a node of the control
	// plane, for its API server; empty: nowhere.
	HostsFile string
	// EnableTunnel and EnableProxy are what counts for a switch that raven-cfg
	// does not have.
	EnableTunnel, EnableProxy bool
	// Log takes what changes; nil means nothing is logged.
	Log *slog.Logger
	// Update is called with the first snapshot and then with each that differs
	// from the one before, from the goroutine of Run; required. It must not
	// change the snapshot, and may keep it.
	Update func(control.Snapshot)
	// Changed is called when State says something new of the connection, from
	// any goroutine; it must not block. Nil means nobody is told.
	Changed func()
}

// Client is this node's connection to the cluster. Its methods may be called from
// any goroutine.
type Client struct {
	cfg    Config
	log    *slog.Logger
	api    *server
	link   *link
	cache  diskCache
	change chan struct{} // something in the stores is new

	gateways  *gatewayStore
	settings  *settingsStore
	balancers *balancerStore
	services  services
	publisher *publisher
	keeper    *keeper

	fronts  latest[bool] // whether this node is a front of the proxy
	names   nodeNames
	serving *serving
	// clientCAs are nil while they are not known.
	clientCAs atomic.Pointer[x509.CertPool]
	hosts     *hostsFile // nil: none is kept
	ca        authority

	last  control.Snapshot
	begun bool
}

// New reads the kubeconfig and what was known last. It opens nothing on the
// network and starts nothing.
func New(cfg Config) (*Client, error) {
	rc, err := restConfig(cfg.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kube: %w", err)
	}
	return newClient(cfg, rc)
}

// newClient is New with the way to the API server known.
func newClient(cfg Config, rc *rest.Config) (*Client, error) {
	switch {
	case cfg.Update == nil:
		return nil, errors.New("kube: no Update function")
	case v1beta1.CheckName(cfg.Node) != nil:
		return nil, fmt.Errorf("kube: node name: %w", v1beta1.CheckName(cfg.Node))
	}
	cfg.fill()
	c := &Client{cfg: cfg, log: cfg.Log.With("component", "kube"), change: make(chan struct{}, 1)}
	c.link = newLink(rc.Host, c.log, cfg.Changed)
	c.gateways = newGatewayStore(c.poke)
	c.settings = newSettingsStore(c.poke)
	var err error
	if c.api, err = newServer(cfg, rc, c.link); err != nil {
		return nil, fmt.Errorf("kube: %w", err)
	}
	c.cache = diskCache{dir: cfg.StateDir}
	c.publisher = newPublisher(cfg.Node, c.api, c.link, c.log)
	c.balancers = newBalancerStore(c.publisher.balancers.put)
	c.keeper = newKeeper(cfg.Node, c.api, c.link, c.log)
	c.fronts.wake = make(chan struct{}, 1)
	c.serving = newServing(cfg, c.api, c.link, c.log)
	c.ca = authority{file: rc.CAFile, data: rc.CAData}
	if cfg.HostsFile != "" {
		c.hosts = &hostsFile{path: cfg.HostsFile, own: ownHosts, node: cfg.Node, api: c.api, link: c.link, log: c.log}
	}
	return c, nil
}

func (cfg *Config) fill() {
	if cfg.UserAgent == "" {
		cfg.UserAgent = defaultUserAgent
	}
	if cfg.Namespace == "" {
		cfg.Namespace = defaultNamespace
	}
	if cfg.LeaseNamespace == "" {
		cfg.LeaseNamespace = defaultLeaseNamespace
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
}

// Run reads, publishes and keeps the Lease until ctx is done; then it gives the
// Lease up, for a second at most, and returns nil. It does not fail: while the
// API server is away the last state stays, and State says so.
func (c *Client) Run(ctx context.Context) error {
	c.recall()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.api.watchGateways(ctx, c.gateways) })
	g.Go(func() error { return c.api.watchSettings(ctx, c.settings) })
	// A name that is too long for a label has no Service either.
	if c.cfg.Balancers && len(c.cfg.Node) <= validation.LabelValueMaxLength {
		g.Go(func() error { return c.api.watchBalancers(ctx, c.cfg.Node, c.balancers) })
	}
	if c.cfg.Services {
		g.Go(func() error { return c.api.watchServices(ctx, &c.services) })
	}
	g.Go(func() error { return c.publisher.run(ctx) })
	g.Go(func() error { return c.keeper.run(ctx) })
	g.Go(func() error { return c.runFront(ctx) })
	if c.hosts != nil {
		g.Go(func() error { return c.hosts.run(ctx) })
	}
	g.Go(func() error { return c.assemble(ctx) })
	return g.Wait()
}

// Publish tells what this node's entries in spec.endpoints should say. It never
// blocks; the newest counts.
func (c *Client) Publish(e Entry) { c.publisher.entry.put(e) }

// Haste tells whether somebody active in this domain does not answer. Then a
// standby renews its Lease as often as an active node: whoever elects sees that it
// is alive, and not cut off with the other. It never blocks.
func (c *Client) Haste(on bool) { c.keeper.haste.put(on) }

// Carry tells whether this node can carry its domain's traffic now, and if not,
// why. It never blocks; the newest counts. Until the first call the Lease is left
// as it is.
func (c *Client) Carry(ok bool, reason string) { c.keeper.carry.put(carrying{ok, reason}) }

// Server returns the address of the API server, or of the proxy before it, as it
// was dialed last; zero when that is not known.
func (c *Client) Server() netip.Addr { return c.link.address() }

// State returns what the connection is like now.
func (c *Client) State() State { return c.link.state() }

// Counters returns what was counted since the start: requests by what became of
// them, and whether the API server answers (a gauge).
func (c *Client) Counters() []dataplane.Counter { return c.link.counters() }

func (c *Client) poke() {
	select {
	case c.change <- struct{}{}:
	default:
	}
}

// Intervals of the goroutine that puts snapshots together.
const (
	// gather is how long changes are gathered into one snapshot.
	gather = 50 * time.Millisecond
	// saveEvery is how often the state is written to disk at most: edge boxes
	// have flash.
	saveEvery = 10 * time.Second
)

// assemble turns what the stores hold into snapshots, and keeps the newest on
// disk.
func (c *Client) assemble(ctx context.Context) error {
	save := time.NewTimer(saveEvery)
	save.Stop()
	defer save.Stop()
	var due, saved time.Time
	for {
		select {
		case <-ctx.Done():
			if !due.IsZero() {
				c.keep()
			}
			return nil
		case <-save.C:
			c.keep()
			due, saved = time.Time{}, time.Now()
			continue
		case <-c.change:
		}
		if !pause(ctx, gather) {
			continue
		}
		if c.tell() && due.IsZero() {
			due = later(time.Now().Add(time.Second), saved.Add(saveEvery))
			save.Reset(time.Until(due))
		}
	}
}

// tell makes a snapshot of what the stores hold and hands it on when it is new;
// then it returns true.
func (c *Client) tell() bool {
	gateways, problems, ok := c.gateways.all()
	if !ok {
		return false
	}
	cfg, ok := c.settings.get()
	if !ok {
		return false
	}
	public, _ := cfg.bound() // an error is among the problems
	c.publisher.bound.put(public)
	c.publisher.gateways.put(listing(gateways, c.cfg.Node))
	c.keeper.gateways.put(listing(gateways, c.cfg.Node))
	before := allowOf(c.last)
	before.closed = before.closed || !c.begun
	s := snapshot(c.cfg, gateways, problems, cfg, before)
	c.link.live()
	if c.begun && s.Equal(c.last) {
		return false
	}
	c.hand(s)
	return true
}

// hand gives a snapshot to Update, and logs the problems that came and went.
func (c *Client) hand(s control.Snapshot) {
	logProblems(c.log, c.last.Problems, s.Problems)
	c.log.Info("gateway objects read", "gateways", len(s.Gateways), "tunnel", s.EnableTunnel, "proxy", s.EnableProxy, "problems", len(s.Problems))
	c.begun, c.last = true, s
	c.cfg.Update(s)
}

// recall starts with what was known last, when there is something.
func (c *Client) recall() {
	k, err := c.cache.load()
	if err != nil {
		c.log.Warn("what the last start knew of the cluster is lost", "err", err)
		c.link.cacheFailed(err)
	}
	if k == nil {
		return
	}
	gateways, problems := k.gateways()
	c.settings.assume(k.Settings)
	c.link.recalled(k.Saved)
	c.hand(snapshot(c.cfg, gateways, problems, k.Settings, allowed{k.Allow, k.Closed}))
}

// keep writes what is known to disk.
func (c *Client) keep() {
	cfg, _ := c.settings.get()
	err := c.cache.save(known{Saved: time.Now(), Settings: cfg, Allow: c.last.AllowSources, Closed: c.last.AllowClosed, Gateways: c.last.Gateways})
	if err != nil {
		c.log.Warn("what is known of the cluster cannot be kept on disk", "err", err)
	}
	c.link.cacheFailed(err)
}

// pause waits; it returns false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
