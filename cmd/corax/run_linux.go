package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"corax/dataplane/hostnet"
	"corax/dataplane/netstack"
	"corax/proxy/inner"
)

// runCommand runs a command in namespaces of its own until it ends, and returns its
// exit code; with an error one that says that it was not the command's.
func runCommand(ctx context.Context, socket string, args []string, verbose bool, stderr io.Writer) (int, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return exitRunNotExec, err
		}
		return exitRunNotFound, err
	}
	c := newClient(socket)
	defer c.Close()
	if _, err := c.Status(ctx); err != nil {
		return exitRunFailed, err
	}
	// Before it is started: a signal must not be lost between the two.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH)
	defer signal.Stop(signals)
	in, err := startInside(path, args)
	if err != nil {
		return exitRunFailed, err
	}
	// Signals are for the command to decide on, so that only its end is the end.
	code, err := in.carry(context.WithoutCancel(ctx), runDialer{c}, signals, verbose, stderr)
	if err != nil {
		return exitRunFailed, err
	}
	return code, nil
}

// carry carries what the command sends until it ends.
func (in *inside) carry(ctx context.Context, dialer inner.Dialer, signals <-chan os.Signal, verbose bool, stderr io.Writer) (int, error) {
	log := slog.New(slog.DiscardHandler)
	if verbose {
		log = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	n, err := newRunNetwork(in.tun, dialer, log)
	if err != nil {
		in.kill()
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.site.Run(ctx) })
	g.Go(func() error { return n.tun.Run(ctx) })
	var code int
	g.Go(func() error {
		defer cancel()
		if err := in.begin(); err != nil {
			in.kill()
			return err
		}
		code = in.wait(ctx, signals)
		return nil
	})
	err = g.Wait()
	cancel()
	if err != nil && !in.killed {
		err = nil // the device goes with the command's namespace, perhaps before we hear of its end
	}
	err = errors.Join(err, n.tun.Close())
	if verbose {
		for _, c := range n.handler.Counters() {
			if c.Value != 0 {
				_, _ = fmt.Fprintf(stderr, "corax: run: %s %s %d\n", c.Name, c.Reason, c.Value)
			}
		}
	}
	return code, err
}

// runNetwork is what a namespace's TUN leads to.
type runNetwork struct {
	tun     *hostnet.TUN
	site    *netstack.Site
	handler *inner.Handler
}

func newRunNetwork(f *os.File, dialer inner.Dialer, log *slog.Logger) (*runNetwork, error) {
	n := &runNetwork{}
	var err error
	n.handler, err = inner.New(inner.Config{Log: log, Dialer: dialer, NameServers: []netip.Addr{runNameServer()}})
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	late := &lateSender{}
	if n.site, err = netstack.NewSite(netstack.SiteConfig{Log: log, MTU: runMTU, Send: late, Handler: n.handler}); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	n.tun, err = hostnet.AttachTUN(hostnet.TUNConfig{Log: log, Name: runTUN, MTU: runMTU, Receive: n.site}, f)
	if err != nil {
		return nil, errors.Join(err, n.site.Close(), f.Close())
	}
	late.Sender = n.tun
	return n, nil
}

// wait passes signals on to the command until it ends, and returns its exit code.
func (in *inside) wait(ctx context.Context, signals <-chan os.Signal) int {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = in.cmd.Wait() // the state says it all
	}()
	broken := ctx.Done()
	for {
		select {
		case <-ended:
			state, ok := in.cmd.ProcessState.Sys().(syscall.WaitStatus)
			if ok && state.Signaled() {
				return 128 + int(state.Signal())
			}
			return in.cmd.ProcessState.ExitCode()
		case s := <-signals:
			if !fromTerminal(s) {
				_ = in.cmd.Process.Signal(s)
			}
		case <-broken: // the network is gone
			in.kill()
			broken = nil
		}
	}
}

// fromTerminal reports whether the command has had a signal already: the terminal sends
// those of its keys to all of its foreground processes.
func fromTerminal(s os.Signal) bool {
	if s != unix.SIGINT && s != unix.SIGQUIT && s != unix.SIGWINCH {
		return false
	}
	f, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer f.Close()
	group, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
