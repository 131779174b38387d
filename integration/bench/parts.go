//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// part is something that can be measured.
type part struct {
	name string
	run  func(ctx context.Context, o options, out io.Writer) error
}

// options are what the command line says.
type options struct {
	corax   string
	systems []system
	rounds  int
	plan
}

// parts returns everything, in the order in which it is measured.
func parts() []part {
	return []part{
		{"systems", measureSystems},
		{"relay", func(ctx context.Context, o options, out io.Writer) error {
			return measureRelay(ctx, o.corax, o.plan, o.rounds, out)
		}},
		{"pairs", func(ctx context.Context, o options, out io.Writer) error {
			return measurePairs(ctx, o.corax, o.plan, o.rounds, out)
		}},
		{"hub", func(ctx context.Context, o options, out io.Writer) error {
			return measureHub(ctx, o.corax, o.plan, meshEdges, out)
		}},
		{"peers", func(ctx context.Context, o options, out io.Writer) error {
			return measurePeers(ctx, o.corax, o.plan, []int{100, 1000}, out)
		}},
		{"proxy", func(ctx context.Context, o options, out io.Writer) error {
			return measureProxy(ctx, o.corax, o.plan, o.rounds, out)
		}},
		{"rootless", func(ctx context.Context, o options, out io.Writer) error {
			return measureRootless(ctx, o.corax, o.plan, o.rounds, out)
		}},
	}
}

// partNames lists them all, comma separated.
func partNames() string {
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

// pickParts returns the parts with the given names, in their order, or all for
// "all".
func pickParts(names string) ([]part, error) {
	all := parts()
	if names == "all" {
		return all, nil
	}
	wanted := strings.Split(names, ",")
	for _, name := range wanted {
		if !slices.ContainsFunc(all, func(p part) bool { return p.name == name }) {
			return nil, fmt.Errorf("unknown part %q", name)
		}
	}
	return slices.DeleteFunc(all, func(p part) bool { return !slices.Contains(wanted, p.name) }), nil
}

// runParts measures one part after the other. One that fails does not keep the
// others from being measured; the error holds all failures.
func runParts(ctx context.Context, chosen []part, o options, out io.Writer) error {
	var errs []error
	for _, p := range chosen {
		if err := p.run(ctx, o, out); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// measureSystems compares the systems, and prints the goals.
func measureSystems(ctx context.Context, o options, out io.Writer) error {
	r, err := measureAll(ctx, o.systems, o.rounds, o.plan, out)
	printTables(out, r)
	printGoals(out, r, binarySize(o.corax))
	return err
}
