package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"
)

func newNCCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "nc HOST PORT",
		Short: "Connect standard input and output with a TCP port of another domain",
		Long: `Connect standard input and output with a TCP port of another domain, through the
agent of this node: for scripts, and as ssh -o ProxyCommand="corax nc %h %p". HOST is
an address in a subnet of another domain, or a name when the agent has --cluster-dns.

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
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if err != nil {
		return c.noAgent(err)
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	u := url.URL{Scheme: "http", Host: "corax", Path: "/v1/connect", RawQuery: url.Values{"host": {host}, "port": {port}}.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", streamProtocol)
	_ = conn.SetDeadline(time.Now().Add(maxAnswer))
	if err := req.Write(conn); err != nil {
		return c.noAgent(err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return c.noAgent(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		var e apiError
		if json.NewDecoder(io.LimitReader(resp.Body, maxHeader)).Decode(&e) != nil || e.Error == "" {
			e.Error = resp.Status
		}
		return errors.New(e.Error)
	}
	_ = conn.SetDeadline(time.Time{})
	// Reading standard input cannot be interrupted: it ends with the process.
	go func() {
		if _, err := io.Copy(conn, in); err == nil {
			_ = conn.(*net.UnixConn).CloseWrite()
		}
	}()
	_, err = io.Copy(out, r)
	return err
}
