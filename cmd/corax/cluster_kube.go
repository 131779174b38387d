//go:build !nokube

package main

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"corax/control/kube"
	"corax/proxy/front"
)

// kubeCluster is a cluster of Kubernetes.
type kubeCluster struct {
	*kube.Client
	audiences []string // of callers' tokens
	domain    string   // of the cluster's DNS
	log       *slog.Logger
}

// newCluster makes the agent's side of the cluster that cfg names, or that this
// pod is in.
func newCluster(cfg agentConfig, log *slog.Logger, in inbox) (cluster, error) {
	c := kube.Config{
		Kubeconfig: cfg.Kubeconfig, Node: cfg.NodeName, StateDir: cfg.StateDir,
		UserAgent: "corax-agent/" + versionText(), EnableTunnel: true, EnableProxy: true,
		ClusterDomain: cfg.ClusterDomain,
		Services:      len(cfg.ServiceCIDRs) > 0,
		HostsFile:     cfg.hostsFile(), Log: log, Update: in.put, Changed: in.poke,
	}
	if cfg.Preset == presetOpenYurt {
		// Raven's meaning of a missing raven-cfg, and the name that YurtHub caches
		// for.
		c.UserAgent, c.EnableTunnel, c.EnableProxy = "raven-agent-ds", false, false
		// yurt-manager makes the Services, and leaves their addresses to agents.
		c.Balancers = true
	}
	client, err := kube.New(c)
	if err != nil {
		return nil, err
	}
	return kubeCluster{client, cfg.Front.Audiences, cfg.ClusterDomain, log}, nil
}

func (c kubeCluster) Publish(e entry) {
	c.Client.Publish(kube.Entry{PublicKey: e.PublicKey, NextPublicKey: e.NextPublicKey, NATType: e.NATType, TLSPort: e.TLSPort})
}

func (c kubeCluster) Connected() (bool, time.Time) {
	s := c.State()
	return s.Connected, s.Since
}

func (c kubeCluster) Problems() []string { return c.State().Problems() }

// Fronting lets a front ask the API server who callers are, and gives it the names
// of nodes, the certificate of the proxy's Service and the cluster's authorities.
func (c kubeCluster) Fronting(f *front.Config) {
	f.Auth = kubeAuth{c.Client, c.audiences}
	f.Certificate, f.ServiceNames = c.Certificate, kube.ServingNames(kubeNamespace, c.domain)
	f.ClientCAs = c.ClientCAs
	f.Hostname = c.Hostname
	f.Names = func(host string) (string, bool) {
		node, known, _ := c.Node(host)
		return node, known
	}
	var failed errChange // it is asked for each request
	f.NodeCAs = func() *x509.CertPool {
		pool, err := c.ClusterCA()
		if failed.is(err) && err != nil {
			c.log.Warn("no certificate of a node can be verified", "err", err)
		}
		return pool
	}
}

// kubeNamespace is where the proxy's Service is.
const kubeNamespace = "kube-system"

// kubeAuth asks the API server who callers are and what they may.
type kubeAuth struct {
	client    *kube.Client
	audiences []string
}

var _ front.Auth = kubeAuth{}

// Token returns whose a bearer token is.
func (k kubeAuth) Token(ctx context.Context, token string) (front.User, error) {
	u, err := k.client.User(ctx, token, k.audiences)
	if errors.Is(err, kube.ErrUnauthenticated) {
		return front.User{}, front.ErrUnauthenticated
	}
	return front.User(u), err
}

// Allowed reports whether the user may do it.
func (k kubeAuth) Allowed(ctx context.Context, u front.User, a front.Access) (bool, error) {
	ok, _, err := k.client.May(ctx, kube.User(u), kube.Question{Verb: a.Verb, Subresource: a.Subresource, Node: a.Node})
	return ok, err
}

// clusterCommands are the commands that only a cluster has use for.
func clusterCommands() []*cobra.Command { return []*cobra.Command{newControllerCommand()} }

// survey looks a node up in a cluster, for the doctor.
func survey(ctx context.Context, kubeconfig, node string) (surveyed, error) {
	s, err := kube.NewSurvey(ctx, kube.Config{Kubeconfig: kubeconfig, UserAgent: "corax-doctor/" + versionText()}, node)
	return surveyed{
		Node: s.Node, Hostname: s.Hostname, Gateway: s.Gateway, Active: s.Active, Fronts: s.Fronts, Switch: s.Switch,
		Leads: s.Leads, Service: s.Service, Ports: s.Ports, Plain: s.Plain, Ready: s.Ready, Unread: s.Unread,
	}, err
}
