package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newPingCommand() *cobra.Command {
	var (
		count       int
		untilDirect bool
	)
	cmd := &cobra.Command{
		Use:   "ping PEER|NODE|IP",
		Short: "Measure round trips over the tunnel, and show the path of each",
		Long: `Send an echo request a second over the tunnel to a gateway node, named by its
Gateway, its node or an IP address, and show the path that each answer took.

With --until-direct it ends when an answer took a direct path; else the last line
says why the path is not direct.

Exit codes: 0 an answer came (with --until-direct: over a direct path), 1 none
did, 2 no agent answers, 3 wrong usage.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("exactly one peer, node or IP address is needed")
			}
			return nil
		},
	}
	cmd.Flags().IntVarP(&count, "count", "c", 0, "stop after `N` requests (default: when interrupted)")
	cmd.Flags().BoolVar(&untilDirect, "until-direct", false, "stop when the path is direct")
	socket := socketFlag(cmd)
	cmd.ValidArgsFunction = completePeers(socket)
	cmd.RunE = runs(func(cmd *cobra.Command, args []string) error {
		if count < 0 || count > maxEchoes || cmd.Flags().Changed("count") && count == 0 {
			return &exitError{exitUsage, fmt.Errorf("ping: --count: %d is not a number from 1 to %d", count, maxEchoes), ""}
		}
		c := newClient(*socket)
		defer c.Close()
		p := pinger{w: cmd.OutOrStdout(), untilDirect: untilDirect}
		if err := p.run(cmd.Context(), c, args[0], count); err != nil {
			return fmt.Errorf("ping %s: %w", args[0], err)
		}
		return p.verdict()
	})
	return cmd
}

// pinger prints replies and sums them up.
type pinger struct {
	w           io.Writer
	untilDirect bool

	sent, answered int
	low, high, sum float64 // milliseconds, of the answered
	direct         bool    // the last answer came over a direct path
	last           Path    // of the last request, answered or not
}

func (p *pinger) run(ctx context.Context, c *client, target string, n int) error {
	err := c.Ping(ctx, target, n, p.reply)
	if p.sent > 0 {
		p.summary(target)
	}
	return err
}

// reply prints one reply and reports whether more are wanted.
func (p *pinger) reply(r PingReply) bool {
	p.sent++
	p.last = r.Path
	from := fmt.Sprintf("%s/%s (%s)", dash(r.Gateway), dash(r.Node), addrText(r.Address.IsValid(), r.Address))
	if r.Lost {
		_, _ = fmt.Fprintf(p.w, "no answer from %s: seq=%d\n", from, r.Seq)
		return true
	}
	p.count(r)
	path := pathText(r.Path)
	if r.Path.Endpoint != "" {
		path += " " + oneLine(r.Path.Endpoint)
	}
	_, _ = fmt.Fprintf(p.w, "answer from %s: seq=%d time=%s path=%s\n", from, r.Seq, millisText(r.RTTMillis), path)
	return !p.untilDirect || !p.direct
}

func (p *pinger) count(r PingReply) {
	if p.answered == 0 {
		p.low, p.high = r.RTTMillis, r.RTTMillis
	}
	p.answered++
	p.sum += r.RTTMillis
	p.low, p.high = min(p.low, r.RTTMillis), max(p.high, r.RTTMillis)
	p.direct = r.Path.Kind == PathDirect || r.Path.Kind == PathVXLAN
}

func (p *pinger) summary(target string) {
	_, _ = fmt.Fprintf(p.w, "\n%s: %d sent, %d answered, %s lost", oneLine(target), p.sent, p.answered,
		percentText(1-float64(p.answered)/float64(p.sent)))
	if p.answered > 0 {
		_, _ = fmt.Fprintf(p.w, "; round trip min %s, mean %s, max %s",
			millisText(p.low), millisText(p.sum/float64(p.answered)), millisText(p.high))
	}
	_, _ = fmt.Fprintln(p.w)
	if p.untilDirect && !p.direct {
		_, _ = fmt.Fprintln(p.w, stayText(p.last))
	}
}

// stayText says what a path is that did not become direct, and why.
func stayText(p Path) string {
	text := "the path stays " + pathText(p)
	if p.Kind == "" || p.Kind == PathNone {
		text = "there is no path"
	}
	if p.Why != "" {
		text += ": " + oneLine(p.Why)
	}
	return text
}

// verdict is an error without words when what was wanted did not happen: the
// summary says so.
func (p *pinger) verdict() error {
	if p.answered == 0 || p.untilDirect && !p.direct {
		return &exitError{code: exitFailed}
	}
	return nil
}
