//go:build !linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
)

func runCommand(context.Context, string, []string, bool, io.Writer) (int, error) {
	return exitRunFailed, fmt.Errorf("namespaces: %w", errors.ErrUnsupported)
}

func runInside() (int, bool) { return 0, false }
