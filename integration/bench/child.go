//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"corax/integration/lab"
)

// counts is what a traffic process had sent or received at a moment.
type counts struct {
	bytes, packets uint64
}

// child is a traffic process on a host.
type child struct {
	proc  *lab.Process
	ask   *os.File // its standard input
	tell  *os.File // its standard output
	lines *bufio.Reader
}

// startChild runs this program as a traffic process.
func startChild(h *lab.Host, args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, append([]string{trafficArg}, args...)...)
	stdin, ask, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = stdin.Close() }()
	tell, stdout, err := os.Pipe()
	if err != nil {
		_ = ask.Close()
		return nil, err
	}
	defer func() { _ = stdout.Close() }()
	cmd.Stdin, cmd.Stdout = stdin, stdout
	c := &child{ask: ask, tell: tell, lines: bufio.NewReader(tell)}
	if c.proc, err = h.Start("traffic-"+args[0], cmd); err != nil {
		return nil, errors.Join(err, c.closePipes())
	}
	return c, nil
}

// counts asks the process for its counts.
func (c *child) counts() (counts, error) {
	if err := c.tell.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return counts{}, err
	}
	if _, err := c.ask.WriteString("\n"); err != nil {
		return counts{}, c.ended(err)
	}
	line, err := c.lines.ReadString('\n')
	if err != nil {
		return counts{}, c.ended(err)
	}
	var n counts
	if _, err := fmt.Sscan(line, &n.bytes, &n.packets); err != nil {
		return counts{}, fmt.Errorf("%s: answer %q: %w", c.proc.Name, line, err)
	}
	return n, nil
}

// ended adds to an error what the process wrote.
func (c *child) ended(err error) error {
	log, _ := os.ReadFile(c.proc.Log)
	return fmt.Errorf("%s: %w: %s", c.proc.Name, err, strings.TrimSpace(string(log)))
}

// stop ends the process.
func (c *child) stop() error {
	return errors.Join(c.proc.Kill(), c.closePipes())
}

func (c *child) closePipes() error {
	return errors.Join(c.ask.Close(), c.tell.Close())
}

// latency is the distribution of round trips.
type latency struct {
	p50, p99 time.Duration
	count    int
}

// measureLatency runs a ping process to its end.
func measureLatency(ctx context.Context, from *lab.Host, to netip.Addr, d time.Duration) (latency, error) {
	self, err := os.Executable()
	if err != nil {
		return latency{}, err
	}
	out, err := from.Run(ctx, self, trafficArg, "ping", netip.AddrPortFrom(to, echoPort).String(), d.String())
	if err != nil {
		return latency{}, err
	}
	var l latency
	if _, err := fmt.Sscan(string(out), &l.p50, &l.p99, &l.count); err != nil {
		return latency{}, fmt.Errorf("ping printed %q: %w", out, err)
	}
	return l, nil
}
