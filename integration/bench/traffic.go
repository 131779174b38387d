//go:build linux

package main

import (
	"bufio"
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
//	tcp ADDR:PORT             send until standard input ends
//	udp ADDR:PORT SIZE        the same, datagrams of SIZE bytes, as fast as they go
//	ping ADDR:PORT DURATION   print the median and the 99th percentile of round
//	                          trips in nanoseconds, and how many there were
//
// The first three answer each line of standard input with the bytes and packets
// so far.
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
	case args[0] == "tcp" && len(args) == 2:
		to, err := netip.ParseAddrPort(args[1])
		if err != nil {
			return err
		}
		work = append(work, func() error { return sendTCP(to, m) })
	case args[0] == "udp" && len(args) == 3:
		to, err := netip.ParseAddrPort(args[1])
		if err != nil {
			return err
		}
		size, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		work = append(work, func() error { return sendUDP(to, size, m) })
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
