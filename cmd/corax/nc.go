package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/spf13/cobra"
)

func newNCCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "nc HOST PORT",
		Short: "Connect standard input and output with a TCP port of another domain",
		Long: `Connect standard input and output with a TCP port of another domain, through the
agent of this node: for scripts, and as ssh -o ProxyCommand="corax nc %h %p". HOST is
an address in a subnet of another domain, that of a Service when the agent has
--service-cidr, or a name when it has --cluster-dns.

Exit codes: 0 the other end closed in order, 1 it could not be reached or broke
off, 2 no agent answers, 3 wrong usage.`,
		Args: func(_ *cobra.Command, args []string) error {
			var p uint16
			if len(args) != 2 || args[0] == "" || port(&p)(args[1]) != nil {
				return errors.New("a host and a port are needed")
			}
			return nil
		},
	}
	socket := socketFlag(cmd)
	cmd.RunE = runs(func(cmd *cobra.Command, args []string) error {
		c := newClient(*socket)
		defer c.Close()
		if err := c.Connect(cmd.Context(), args[0], args[1], cmd.InOrStdin(), cmd.OutOrStdout()); err != nil {
			return fmt.Errorf("nc %s %s: %w", args[0], args[1], err)
		}
		return nil
	})
	return cmd
}

// Connect copies between in, out and a port of another domain until that end has
// closed, and passes on the end of in.
func (c *client) Connect(ctx context.Context, host, port string, in io.Reader, out io.Writer) error {
	conn, err := c.Stream(ctx, url.Values{"host": {host}, "port": {port}})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	// Reading standard input cannot be interrupted: it ends with the process.
	go func() {
		if _, err := io.Copy(conn, in); err == nil {
			_ = conn.CloseWrite()
		}
	}()
	_, err = io.Copy(out, conn)
	return err
}
