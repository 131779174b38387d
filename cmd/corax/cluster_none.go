//go:build nokube

package main

import (
	"errors"
	"log/slog"

	"github.com/spf13/cobra"
)

func newCluster(agentConfig, *slog.Logger, inbox) (cluster, error) {
	return nil, errors.New("this program was built without Kubernetes: use --gateways")
}

func clusterCommands() []*cobra.Command { return nil }
