//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"corax/integration/lab"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == trafficArg {
		os.Exit(traffic(os.Args[2:]))
	}
	code, done, err := lab.Reexec()
	if err != nil {
		fmt.Fprintln(os.Stderr, "corax bench:", err)
		os.Exit(1)
	}
	if done {
		os.Exit(code)
	}
	os.Exit(run())
}

func run() int {
	corax := flag.String("corax", "bin/corax", "the corax `binary`")
	names := flag.String("parts", "all", "what to measure, comma separated: "+partNames())
	systemNames := flag.String("systems", "all", "which ones to compare, comma separated: kernel, wireguard-go, wireguard-go-1, corax, nebula, openvpn, libipsec; name=binary: another build of corax")
	rounds := flag.Int("rounds", 5, "how often each system, way or pair is measured")
	seconds := flag.Float64("seconds", 5, "how long each TCP direction is measured; UDP sizes half of it; the rest in proportion")
	quiet := flag.Duration("quiet", 15*time.Second, "before each measurement wait until the machine is idle, at most this long")
	congestion := flag.String("congestion", defaultCongestion, "the `name` of the congestion control of TCP, when systems are compared")
	perf := flag.String("perf", "", "write profiles of the TCP runs to this `directory` (needs linux-perf; slows everything)")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	chosen, err := pickParts(*names)
	compared, err2 := pick(systems(*corax), *systemNames)
	if err := errors.Join(err, err2); err != nil || *rounds < 1 || *seconds <= 0 {
		fmt.Fprintln(os.Stderr, "corax bench:", errors.Join(err, errors.New("see -h")))
		return 3
	}
	o := options{
		corax: *corax, systems: compared, rounds: *rounds,
		plan: plan{seconds: time.Duration(*seconds * float64(time.Second)), quiet: *quiet, rest: restTime, congestion: *congestion, perf: *perf},
	}
	fmt.Println(machine())
	if err := runParts(ctx, chosen, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "corax bench:", err)
		return 1
	}
	return 0
}

// results are the figures of the systems that ran, in order.
type results []result

type result struct {
	name   string
	rounds []figures
}

// measureAll measures the systems that can run here, in turns, and their memory at
// rest in the first round. A system that fails is left out from then on; the error
// holds all failures.
func measureAll(ctx context.Context, chosen []system, rounds int, p plan, out io.Writer) (results, error) {
	var r results
	var runnable []system
	for _, s := range chosen {
		if why := s.missing(); why != "" {
			fmt.Fprintf(out, "%s skipped: %s\n", s.name, why)
			continue
		}
		runnable = append(runnable, s)
		r = append(r, result{name: s.name})
	}
	var errs []error
	failed := make([]bool, len(runnable))
	for i := range rounds {
		if i > 0 {
			p.rest = 0
		}
		for k, s := range runnable {
			if failed[k] {
				continue
			}
			err := awaitQuiet(ctx, p.quiet)
			var f figures
			if err == nil {
				f, err = round(ctx, s, p)
			}
			if ctx.Err() != nil {
				return r, errors.Join(append(errs, context.Cause(ctx))...)
			}
			if err != nil {
				failed[k] = true
				errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
				fmt.Fprintf(out, "round %d  %-15s failed\n", i+1, s.name)
				continue
			}
			if i > 0 {
				f.idle = r[k].rounds[0].idle
			}
			r[k].rounds = append(r[k].rounds, f)
			fmt.Fprintf(out, "round %d  %-15s TCP %6.2f %6.2f Gbit/s  CPU %5.2f s/GB  UDP %4.0f %4.0f %4.0f k/s  load %s\n", i+1, s.name,
				f.tcp[0].bitrate/1e9, f.tcp[1].bitrate/1e9, labCPU(f), f.udp[0].rate/1e3, f.udp[1].rate/1e3, f.udp[2].rate/1e3, load())
		}
	}
	return r, errors.Join(errs...)
}

// lastLogs returns the last line that each process of a lab wrote.
func lastLogs(l *lab.Lab) string {
	paths, _ := filepath.Glob(filepath.Join(l.Dir(), "*", "*.log"))
	var b strings.Builder
	for _, p := range paths {
		text, _ := os.ReadFile(p)
		text = []byte(strings.TrimSpace(string(text)))
		if len(text) > 0 {
			lines := strings.Split(string(text), "\n")
			fmt.Fprintf(&b, "\n  %s/%s: %s", filepath.Base(filepath.Dir(p)), filepath.Base(p), lines[len(lines)-1])
		}
	}
	return b.String()
}
