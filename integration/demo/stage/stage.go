//go:build linux

package stage

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"corax/integration/lab"
)

// Demo is one demo.
type Demo struct {
	// Name begins the name of the folder of what a failed run leaves.
	Name string
	// Limit is how long it may take, unless a flag says otherwise.
	Limit time.Duration
	// WithoutTUN: it can do without a TUN.
	WithoutTUN bool
	// Show plays it in a lab, and says on out what happens.
	Show func(ctx context.Context, l *lab.Lab, out io.Writer) error
}

var errLate = errors.New("not done within the time limit")

// Main runs a demo as a program, and does not return: it reads the flags, builds or
// finds corax, makes the lab, and cleans up however the demo ends. It comes first in
// main, because the lab starts the program again for what it runs in namespaces.
func Main(d Demo) {
	reexec := lab.Reexec
	if d.WithoutTUN {
		reexec = lab.ReexecWithoutTUN
	}
	code, done, err := reexec()
	if err != nil {
		fmt.Fprintln(os.Stderr, "corax demo:", err)
		os.Exit(1)
	}
	if done {
		os.Exit(code)
	}
	os.Exit(d.run())
}

func (d Demo) run() int {
	corax := flag.String("corax", "bin/corax", "the corax `binary`; built when it does not exist")
	keep := flag.Bool("keep", false, "keep logs and state, and say where")
	limit := flag.Duration("timeout", d.Limit, "give up after this long")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, *limit, fmt.Errorf("%w of %s", errLate, *limit))
	defer cancel()

	if err := chooseBinary(*corax); err != nil {
		fmt.Fprintln(os.Stderr, "corax demo:", err)
		return 1
	}
	l, err := lab.New(lab.Config{Keep: *keep, WithoutTUN: d.WithoutTUN})
	if err != nil {
		fmt.Fprintln(os.Stderr, "corax demo:", err)
		return 1
	}
	err = d.Show(ctx, l, os.Stdout)
	switch {
	case err != nil && context.Cause(ctx) != nil && !errors.Is(context.Cause(ctx), errLate):
		fmt.Fprintln(os.Stderr, "\ncorax demo: interrupted")
	case err != nil:
		fmt.Fprintf(os.Stderr, "\ncorax demo: %v\n", err)
		d.saveLogs(l)
	}
	if *keep {
		fmt.Println("kept:", l.Dir())
	}
	if cerr := l.Close(); cerr != nil {
		fmt.Fprintln(os.Stderr, "corax demo:", cerr)
	}
	if err != nil {
		return 1
	}
	return 0
}

// chooseBinary makes the lab use the binary at path when there is one.
func chooseBinary(path string) error {
	if os.Getenv(lab.BinaryEnv) == "" {
		if _, err := os.Stat(path); err == nil {
			if err := os.Setenv(lab.BinaryEnv, path); err != nil {
				return err
			}
		} else {
			fmt.Println("building corax ...")
		}
	}
	_, err := lab.Corax()
	return err
}

func (d Demo) saveLogs(l *lab.Lab) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("%s-%d", d.Name, os.Getpid()))
	if err := l.Save(dir); err != nil {
		fmt.Fprintln(os.Stderr, "corax demo:", err)
	}
	fmt.Fprintln(os.Stderr, "corax demo: logs and host state:", dir)
}
