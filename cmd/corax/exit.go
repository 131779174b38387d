package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailed  = 1 // status and ping: a wanted peer cannot be reached
	exitNoAgent = 2
	exitUsage   = 3
)

// exitError is an error that ends the program with a code of its own.
type exitError struct {
	code int
	err  error  // nil: all has been said already
	hint string // what may help; empty: nothing
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// runs makes an error of f one of the program's run. What cobra returns beside
// that is a mistake in the arguments.
func runs(f func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := f(cmd, args)
		if e := new(exitError); err == nil || errors.As(err, &e) {
			return err
		}
		return &exitError{code: exitFailed, err: err, hint: hint(err)}
	}
}

// hint returns what the error itself knows to help.
func hint(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return "try: " + h.Hint()
	}
	return ""
}

// report tells the user of err and returns the exit code.
func report(w io.Writer, cmd *cobra.Command, err error) int {
	if err == nil {
		return exitOK
	}
	var e *exitError
	if !errors.As(err, &e) {
		e = &exitError{exitUsage, fmt.Errorf("%s: %w", cmd.Name(), err), "try: " + cmd.CommandPath() + " --help"}
		if !cmd.HasParent() {
			e.err = err
		}
		err = e
	}
	if e.err != nil {
		_, _ = fmt.Fprintf(w, "corax: %s\n", printable(err.Error()))
		if e.hint != "" {
			_, _ = fmt.Fprintf(w, "  %s\n", e.hint)
		}
	}
	return e.code
}
