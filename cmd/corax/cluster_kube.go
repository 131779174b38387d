//go:build !nokube

package main

import (
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"corax/control/kube"
)

// kubeCluster is a cluster of Kubernetes.
type kubeCluster struct{ *kube.Client }

// newCluster makes the agent's side of the cluster that cfg names, or that this
// pod is in.
func newCluster(cfg agentConfig, log *slog.Logger, in inbox) (cluster, error) {
	c := kube.Config{
		Kubeconfig: cfg.Kubeconfig, Node: cfg.NodeName, StateDir: cfg.StateDir,
		UserAgent: "corax-agent/" + versionText(), EnableTunnel: true, EnableProxy: true,
		HostsFile: cfg.hostsFile(), Log: log, Update: in.put, Changed: in.poke,
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
	return kubeCluster{client}, nil
}

func (c kubeCluster) Publish(e entry) {
	c.Client.Publish(kube.Entry{PublicKey: e.PublicKey, NextPublicKey: e.NextPublicKey, NATType: e.NATType, TLSPort: e.TLSPort})
}

func (c kubeCluster) Connected() (bool, time.Time) {
	s := c.State()
	return s.Connected, s.Since
}

func (c kubeCluster) Problems() []string { return c.State().Problems() }

// clusterCommands are the commands that only a cluster has use for.
func clusterCommands() []*cobra.Command { return []*cobra.Command{newControllerCommand()} }
