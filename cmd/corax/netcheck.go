package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newNetcheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "netcheck",
		Short: "Show what the network around this node lets through",
		Long: `Have the agent look at the network around this node: the behaviour of the NATs
before it in the words of RFC 4787, whether UDP gets out, the hubs and their round
trips, whether the router maps ports, and the MTU. It takes some seconds.

Exit codes: 0 shown, 1 the agent could not look, 2 no agent answers, 3 wrong usage.`,
		Args: cobra.NoArgs,
	}
	form := outputFlag(cmd, outputTable, outputJSON, outputYAML)
	socket := socketFlag(cmd)
	cmd.RunE = runs(func(cmd *cobra.Command, _ []string) error {
		out, err := form()
		if err != nil {
			return err
		}
		c := newClient(*socket)
		defer c.Close()
		if err := showNetcheck(cmd.Context(), c, out, cmd.OutOrStdout()); err != nil {
			return fmt.Errorf("netcheck: %w", err)
		}
		return nil
	})
	return cmd
}

func showNetcheck(ctx context.Context, c *client, out output, w io.Writer) error {
	// The agent gives up before that, and says so.
	ctx, cancel := context.WithTimeout(ctx, maxNetcheck+askTimeout)
	defer cancel()
	n, err := c.Netcheck(ctx)
	if err != nil {
		return err
	}
	return writeNetcheck(w, out, n)
}
