//go:build linux

package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// trafficArg is the first argument of the processes that make traffic.
const trafficArg = "traffic"

const (
	sinkPort = 7000 // TCP and UDP: counted and thrown away
	echoPort = 7001 // UDP: sent back
)

// meter counts what a traffic process sent or received.
type meter struct {
	bytes, packets atomic.Uint64
}

// answer writes both counts for each line that it reads; it returns at the end
// of r.
func (m *meter) answer(r io.Reader, w io.Writer) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if _, err := fmt.Fprintln(w, m.bytes.Load(), m.packets.Load()); err != nil {
			return err
		}
	}
	return lines.Err()
}

// traffic is the main function of a traffic process:
//
//	sink                      receive TCP and UDP, echo UDP
//	tcp ADDR:PORT [CONGESTION]
//	                          send until standard input ends
//	udp ADDR:PORT SIZE [RATE] the same, datagrams of SIZE bytes, as fast as they go
//	                          or so many a second
//	mesh SIZE RATE ADDR:PORT...
//	                          the same to each of the addresses, and receive as sink
//	ping ADDR:PORT DURATION   print the median and the 99th percentile of round
//	                          trips in nanoseconds, and how many there were
//
//	stream-server, stream-relay, stream-client
//	                          see streams.go
//
// The first four answer each line of standard input with the bytes and packets so
// far.
func traffic(args []string) int {
	if err := runTraffic(args); err != nil {
		fmt.Fprintln(os.Stderr, "bench traffic:", err)
		return 1
	}
	return 0
}

func runTraffic(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("no arguments")
	}
	m := new(meter)
	var work []func() error
	switch {
	case args[0] == "sink" && len(args) == 1:
		sinks, err := openSinks(m)
		if err != nil {
			return err
		}
		work = sinks
	case args[0] == "tcp" && (len(args) == 2 || len(args) == 3):
		to, err := netip.ParseAddrPort(args[1])
		if err != nil {
			return err
		}
		congestion := defaultCongestion
		if len(args) > 2 {
			congestion = cmp.Or(args[2], congestion)
		}
		work = append(work, func() error { return sendTCP(to, congestion, m) })
	case args[0] == "udp" && (len(args) == 3 || len(args) == 4):
		to, err := netip.ParseAddrPort(args[1])
		if err != nil {
			return err
		}
		n, err := numbers(args[2:])
		if err != nil {
			return err
		}
		rate := 0
		if len(n) > 1 {
			rate = n[1]
		}
		work = append(work, func() error { return sendUDP(to, n[0], rate, m) })
	case args[0] == "mesh" && len(args) >= 4:
		n, err := numbers(args[1:3])
		if err != nil {
			return err
		}
		var to []netip.AddrPort
		for _, a := range args[3:] {
			at, err := netip.ParseAddrPort(a)
			if err != nil {
				return err
			}
			to = append(to, at)
		}
		if work, err = openSinks(m); err != nil {
			return err
		}
		work = append(work, func() error { return sendMesh(to, n[0], n[1]) })
	case args[0] == "ping" && len(args) == 3:
		to, err := netip.ParseAddrPort(args[1])
		if err != nil {
			return err
		}
		d, err := time.ParseDuration(args[2])
		if err != nil {
			return err
		}
		return ping(to, d, os.Stdout)
	case args[0] == "stream-server" && len(args) == 2:
		return serveStreams(args[1])
	case args[0] == "stream-relay" && len(args) == 4:
		return relayStreams(args[1], args[2], args[3])
	case args[0] == "stream-client" && len(args) == 4:
		return useStreams(args[1], args[2], args[3])
	default:
		return fmt.Errorf("unknown arguments %q", args)
	}
	work = append(work, func() error { return m.answer(os.Stdin, os.Stdout) })
	// The first that ends, ends the process and so the others.
	ended := make(chan error, len(work))
	for _, f := range work {
		go func() { ended <- f() }()
	}
	return <-ended
}

// numbers parses positive numbers.
func numbers(args []string) ([]int, error) {
	all := make([]int, len(args))
	for i, a := range args {
		n, err := strconv.Atoi(a)
		if err != nil || n <= 0 {
			return nil, fmt.Errorf("%q is no positive number", a)
		}
		all[i] = n
	}
	return all, nil
}
