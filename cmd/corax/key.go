package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"corax/dataplane/key"
)

func newKeyCommand() *cobra.Command {
	var stateDir string
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Print this node's public key, making the pair when missing",
		Args:  cobra.NoArgs,
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			k, created, err := key.LoadOrCreate(stateDir)
			if err != nil {
				return err
			}
			if created {
				_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "made a new key pair in %s\n", stateDir)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), k.Public())
			return err
		}),
	}
	cmd.Flags().StringVar(&stateDir, "state-dir", defaultStateDir, "directory of the private key")
	return cmd
}
