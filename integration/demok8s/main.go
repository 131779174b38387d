//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"corax/integration/lab"
)

var errLate = errors.New("not done within the time limit")

func main() {
	code, done, err := lab.Reexec()
	if err != nil {
		fmt.Fprintln(os.Stderr, "corax demo:", err)
		os.Exit(1)
	}
	if done {
		os.Exit(code)
	}
	os.Exit(run())
}

func run() int {
	corax := flag.String("corax", "bin/corax", "the corax `binary`; built when it does not exist")
	keep := flag.Bool("keep", false, "keep logs and state, and say where")
	limit := flag.Duration("timeout", 5*time.Minute, "give up after this long")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, *limit, fmt.Errorf("%w of %s", errLate, *limit))
	defer cancel()

	if err := chooseBinary(*corax); err != nil {
		fmt.Fprintln(os.Stderr, "corax demo:", err)
		return 1
	}
	l, err := lab.New(lab.Config{Keep: *keep})
	if err != nil {
		fmt.Fprintln(os.Stderr, "corax demo:", err)
		return 1
	}
	err = show(ctx, l, os.Stdout)
	switch {
	case err != nil && context.Cause(ctx) != nil && !errors.Is(context.Cause(ctx), errLate):
		fmt.Fprintln(os.Stderr, "\ncorax demo: interrupted")
	case err != nil:
		fmt.Fprintf(os.Stderr, "\ncorax demo: %v\n", err)
		saveLogs(l)
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

func saveLogs(l *lab.Lab) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("corax-demo-k8s-%d", os.Getpid()))
	if err := l.Save(dir); err != nil {
		fmt.Fprintln(os.Stderr, "corax demo:", err)
	}
	fmt.Fprintln(os.Stderr, "corax demo: logs and host state:", dir)
}
