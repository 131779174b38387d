package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

func newStatusCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show this node, its peers and its problems",
		Long: `Show this node, its peers and its problems, as the agent sees them.

Exit codes: 0 every peer can be reached (a peer without traffic counts as
reachable), 1 some cannot, 2 no agent answers, 3 wrong usage.`,
		Args: cobra.NoArgs,
	}
	form := outputFlag(cmd, outputTable, outputWide, outputJSON, outputYAML)
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show every change, once a second")
	socket := socketFlag(cmd)
	cmd.RunE = runs(func(cmd *cobra.Command, _ []string) error {
		out, err := form()
		if err != nil {
			return err
		}
		c := newClient(*socket)
		defer c.Close()
		if watch {
			return watchStatus(cmd.Context(), c, out, cmd.OutOrStdout())
		}
		return showStatus(cmd.Context(), c, out, cmd.OutOrStdout())
	})
	return cmd
}

// askTimeout is how long a living agent may take to answer.
const askTimeout = 10 * time.Second

func showStatus(ctx context.Context, c *client, out output, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	s, err := c.Status(ctx)
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	if err := writeStatus(w, out, s, time.Now()); err != nil {
		return fmt.Errorf("status: %w", err)
	}
	return reachable(s)
}

// reachable is an error without words when a peer cannot be reached: the document
// says which.
func reachable(s Status) error {
	for _, p := range s.Peers {
		if !p.Path.Kind.Reachable() {
			return &exitError{code: exitFailed}
		}
	}
	return nil
}

// watchStatus shows every change until ctx ends. What the last look saw decides
// the exit code. An agent that is away for a while is no reason to stop.
func watchStatus(ctx context.Context, c *client, out output, w io.Writer) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	page := pager{w: w, clear: isTerminal(w)}
	for {
		text, last := lookOnce(ctx, c, out)
		if ctx.Err() != nil && errors.Is(last, context.Canceled) {
			return nil // interrupted in the middle of a question
		}
		if err := page.show(text); err != nil {
			return fmt.Errorf("status: %w", err)
		}
		select {
		case <-ctx.Done():
			if e := new(exitError); errors.As(last, &e) {
				return &exitError{code: e.code} // the page has said the rest
			}
			return last
		case <-tick.C:
		}
	}
}

// lookOnce returns what to show now, and the error that status would end with.
func lookOnce(ctx context.Context, c *client, out output) ([]byte, error) {
	var buf bytes.Buffer
	err := showStatus(ctx, c, out, &buf)
	if e := new(exitError); err != nil && (!errors.As(err, &e) || e.err != nil) {
		return []byte("corax: " + printable(err.Error()) + "\n"), err
	}
	return buf.Bytes(), err
}
