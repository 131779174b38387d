package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"corax/dataplane/key"
)

func newKeyCommand() *cobra.Command {
	var (
		stateDir string
		rotate   bool
	)
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Print this node's public key, making the pair when missing",
		Long: `Print this node's public key, making the pair when missing.

With --rotate a next pair is made beside it, and its public key is printed. The agent
publishes it in the cluster; with a directory of Gateway objects put it into
config corax.io/next-public-key of the node's endpoint. Peers accept it beside the
other, and half a minute later the agent uses it.`,
		Args: cobra.NoArgs,
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			k, created, err := key.LoadOrCreate(stateDir)
			if err != nil {
				return err
			}
			if created {
				_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "made a new key pair in %s\n", stateDir)
			}
			public := k.Public()
			next, err := key.LoadNext(stateDir)
			switch {
			case rotate:
				if next, created, err = key.CreateNext(stateDir); err != nil {
					return err
				}
				if created {
					_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "made the next key pair in %s\n", stateDir)
				}
				public = next.Public()
			case err == nil:
				_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "the next public key is %s\n", next.Public())
			case !errors.Is(err, fs.ErrNotExist):
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), public)
			return err
		}),
	}
	cmd.Flags().StringVar(&stateDir, "state-dir", defaultStateDir, "directory of the private key")
	cmd.Flags().BoolVar(&rotate, "rotate", false, "make the next key pair, and print its public key")
	return cmd
}
