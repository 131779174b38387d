//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// profile starts "perf record" on the whole machine when profiles are wanted, and
// notes beside it which processes are the gateways, for "perf report --pid". The
// function that it returns ends it.
func (b *bench) profile(ctx context.Context, from int) (stop func() error, err error) {
	if b.perf == "" {
		return func() error { return nil }, nil
	}
	if err := os.MkdirAll(b.perf, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(b.perf, fmt.Sprintf("%s-from-%s.data", b.name, b.net.sides[from].name))
	var pids strings.Builder
	for i, p := range b.gws {
		if p != nil {
			fmt.Fprintf(&pids, "%s %d\n", b.net.sides[i].gw.Name, p.PID())
		}
	}
	if err := os.WriteFile(strings.TrimSuffix(path, ".data")+".pids", []byte(pids.String()), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "perf", "record", "--quiet", "-a", "-g", "-F", "499", "-o", path)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("perf: %w", err)
	}
	return func() error {
		if err := cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		return ended(cmd.Wait())
	}, nil
}

// ended turns the end that we asked a program for into no error.
func ended(err error) error {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return err
	}
	if w, ok := exit.Sys().(syscall.WaitStatus); ok && w.Signaled() && w.Signal() == syscall.SIGINT {
		return nil
	}
	return err
}
