package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"corax/proxy/outbound"
)

func newForwardCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "forward",
		Short: "Add, list and remove port maps of a running agent",
		Long: `Port maps let programs of this node reach other domains without a route: the agent
listens on a port of this node and connects with one of another domain. What is
added here lasts until the agent ends; corax agent --forward makes maps that stay.

Exit codes: 0 done, 1 refused, 2 no agent answers, 3 wrong usage.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	add := forwardCommand("add tcp|udp/LISTEN=HOST:PORT", "Add a port map; LISTEN is IP:PORT, or a port of 127.0.0.1", http.MethodPost,
		func(s string) error { _, err := outbound.ParseMap(s); return err })
	remove := forwardCommand("remove tcp|udp/LISTEN", "Remove a port map, and break off what is open through it", http.MethodDelete,
		func(s string) error { _, err := outbound.ParseKey(s); return err })
	cmd.AddCommand(add, newForwardListCommand(), remove)
	return cmd
}

func forwardCommand(use, short, method string, check func(string) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return errors.New("exactly one port map is needed")
		}
		return check(args[0])
	}}
	socket := socketFlag(cmd)
	cmd.RunE = runs(func(cmd *cobra.Command, args []string) error {
		c := newClient(*socket)
		defer c.Close()
		body, err := c.ask(cmd.Context(), method, "/v1/forwards", url.Values{"map": {args[0]}})
		if err != nil {
			return fmt.Errorf("forward: %w", err)
		}
		return body.Close()
	})
	return cmd
}

func newForwardListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the port maps", Args: cobra.NoArgs}
	format := cmd.Flags().StringP("output", "o", "table", "`FORM`: table or json")
	socket := socketFlag(cmd)
	cmd.RunE = runs(func(cmd *cobra.Command, _ []string) error {
		if *format != "table" && *format != "json" {
			return &exitError{exitUsage, fmt.Errorf("forward list: -o: %q is neither table nor json", *format), ""}
		}
		c := newClient(*socket)
		defer c.Close()
		list, err := c.Forwards(cmd.Context())
		if err != nil {
			return fmt.Errorf("forward list: %w", err)
		}
		if *format == "json" {
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetIndent("", "  ")
			return enc.Encode(list)
		}
		return printForwards(cmd.OutOrStdout(), list.Forwards)
	})
	return cmd
}

func printForwards(w io.Writer, list []Forward) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(t, "LISTEN\tTO\tOPEN\tPROBLEM")
	for _, f := range list {
		_, _ = fmt.Fprintf(t, "%s/%s\t%s\t%d\t%s\n", f.Network, f.Listen, oneLine(f.To), f.Open, dash(f.Problem))
	}
	return t.Flush()
}

// Forwards asks for the port maps.
func (c *client) Forwards(ctx context.Context) (f Forwards, err error) {
	err = c.document(ctx, "forwards", nil, &f)
	return f, err
}
