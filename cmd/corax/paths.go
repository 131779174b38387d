package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

func newPathsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "paths PEER",
		Short: "Show the ways to a peer, what they cost, and how its path changed",
		Long: `Show all ways to a peer that the agent knows, with their cost, and the last
changes of its path with their causes. The peer is named by its Gateway, its node
or an IP address.

Exit codes: 0 shown, 1 there is no such peer, 2 no agent answers, 3 wrong usage.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("exactly one peer, node or IP address is needed")
			}
			return nil
		},
	}
	form := outputFlag(cmd, outputTable, outputJSON, outputYAML)
	socket := socketFlag(cmd)
	cmd.ValidArgsFunction = completePeers(socket)
	cmd.RunE = runs(func(cmd *cobra.Command, args []string) error {
		out, err := form()
		if err != nil {
			return err
		}
		c := newClient(*socket)
		defer c.Close()
		if err := showPaths(cmd.Context(), c, args[0], out, cmd.OutOrStdout()); err != nil {
			return fmt.Errorf("paths %s: %w", args[0], err)
		}
		return nil
	})
	return cmd
}

func showPaths(ctx context.Context, c *client, peer string, out output, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	p, err := c.Paths(ctx, peer)
	if err != nil {
		return err
	}
	return writePaths(w, out, p, time.Now())
}
