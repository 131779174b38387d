// Command corax connects the network domains of one Kubernetes cluster: the agent
// of a node, the commands that look into it, and the controller of the cluster.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	if code, yes := runInside(); yes {
		os.Exit(code)
	}
	if code, yes := runHelper(); yes {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program; it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	return report(stderr, cmd, err)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "corax",
		Short:         "Connect the network domains of one Kubernetes cluster",
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newAgentCommand(), newKeyCommand(), newStatusCommand(), newPingCommand(),
		newPathsCommand(), newNetcheckCommand(), newProxyCommand(), newDoctorCommand(),
		newForwardCommand(), newNCCommand(), newRunCommand(), newVersionCommand())
	root.AddCommand(clusterCommands()...)
	return root
}
