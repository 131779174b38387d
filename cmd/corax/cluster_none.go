//go:build nokube

package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/spf13/cobra"
)

func newCluster(agentConfig, *slog.Logger, inbox) (cluster, error) {
	return nil, errors.New("this program was built without Kubernetes: use --gateways")
}

func clusterCommands() []*cobra.Command { return nil }

func survey(context.Context, string, string) (surveyed, error) {
	return surveyed{}, errors.New("this program was built without Kubernetes")
}
