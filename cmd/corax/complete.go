package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// completeTimeout is how long a shell waits for the agent to name its peers.
const completeTimeout = time.Second

// completePeers lets the shell complete the one argument of a command with the
// nodes and Gateways that the agent at socket knows. Without an agent there is
// nothing to offer.
func completePeers(socket *string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
		defer cancel()
		c := newClient(*socket)
		defer c.Close()
		s, err := c.Status(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []cobra.Completion
		for _, p := range s.Peers {
			names = append(names, p.Node, p.Gateway)
		}
		names = slices.DeleteFunc(names, func(n string) bool { return n == "" || !strings.HasPrefix(n, prefix) })
		slices.Sort(names)
		return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
	}
}
