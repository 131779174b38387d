package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func newProxyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "proxy",
		Short: "Show the streams of proxy mode that are open now",
		Long: `Show the streams of proxy mode that are open on this node: at a front those that
callers opened, at an edge those that it serves for fronts.

Exit codes: 0 shown, 1 the agent could not answer, 2 no agent answers, 3 wrong usage.`,
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
		if err := showStreams(cmd.Context(), c, out, cmd.OutOrStdout()); err != nil {
			return fmt.Errorf("proxy: %w", err)
		}
		return nil
	})
	return cmd
}

func showStreams(ctx context.Context, c *client, out output, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	s, err := c.Streams(ctx)
	if err != nil {
		return err
	}
	return out.write(w, s, func() string { return streamsTable(s, time.Now()) })
}

// streamsTable is what is open, for a human.
func streamsTable(s ProxyStreams, now time.Time) string {
	if len(s.Streams) == 0 {
		return "no streams are open on " + dash(s.Node) + "\n"
	}
	rows := [][]string{{"TO", "FRONT", "FROM", "USER", "VIA", "AGE", "SENT", "RECEIVED", "PATH"}}
	for _, t := range s.Streams {
		rows = append(rows, []string{
			oneLine(net.JoinHostPort(t.Node, strconv.Itoa(int(t.Port)))), oneLine(cmp.Or(t.Front, t.Side)), t.Caller.String(),
			dash(t.User), dash(t.Via), strings.TrimSuffix(ageText(now, t.Started), " ago"),
			bytesText(t.UpBytes), bytesText(t.DownBytes), dash(t.Path),
		})
	}
	var b strings.Builder
	writeRows(&b, rows)
	return b.String()
}
