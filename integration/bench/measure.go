//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"corax/integration/lab"
)

// udpSizes are the payloads of the UDP figures in bytes. The last does not fit
// podMTU: the sending pod makes two fragments of it, whatever the system.
var udpSizes = [3]int{64, 512, 1400}

// tcpFigures are those of one TCP connection in one direction.
type tcpFigures struct {
	bitrate float64 // received payload, in bit/s
	// CPU seconds per GB (10^9 bytes) received: of the gateway process at the
	// sender and at the receiver, of all processes of the lab, those that make
	// traffic included, and of the whole machine with whatever else runs on it.
	gateway [2]float64
	lab     float64
	machine float64
}

// udpFigures are those of one stream of datagrams from a to b.
type udpFigures struct {
	rate float64 // received per second
	loss float64 // of those sent, 0 to 1
}

// figures are the results of one round of one system.
type figures struct {
	tcp     [2]tcpFigures // a to b, b to a
	udp     [len(udpSizes)]udpFigures
	latency latency
	// Resident bytes of the gateway process that has more: at rest before any
	// load (0: not measured), and at most.
	idle, peak uint64
}

// plan says how long to measure.
type plan struct {
	seconds time.Duration // each TCP direction, and half of it each UDP size
	quiet   time.Duration // how long to wait for an idle machine, at most
	rest    time.Duration // from the first ping to the idle figures; 0: none
	// congestion is the congestion control of TCP; empty: defaultCongestion.
	congestion string
	perf       string // directory for profiles; empty: none
}

const (
	tcpWarmUp = time.Second
	udpWarmUp = 200 * time.Millisecond
	settle    = time.Second // between setting up and measuring, in other parts
	setUpTime = 30 * time.Second

	// restTime is longer than an agent takes to give back what only its start
	// needed. One round has it.
	restTime = 25 * time.Second
)

// limit is how long a round may take in all, before it counts as failed.
func (p plan) limit() time.Duration {
	return setUpTime + 2*(2*(tcpWarmUp+p.seconds)+time.Duration(len(udpSizes))*(udpWarmUp+p.seconds/2)+p.seconds/2+p.rest)
}

// bench measures one system on a network on which it runs.
type bench struct {
	plan
	name string
	net  *network
	gws  gateways
	sink [2]*child
}

// round builds the network, starts a system and measures it.
func round(ctx context.Context, s system, p plan) (_ figures, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.limit(), fmt.Errorf("not done after %s", p.limit()))
	defer cancel()
	l, err := lab.New(lab.Config{})
	if err != nil {
		return figures{}, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	n, err := newNetwork(l)
	if err != nil {
		return figures{}, err
	}
	b := &bench{plan: p, name: s.name, net: n}
	defer func() { err = errors.Join(err, b.tearDown()) }()
	if err := b.setUp(ctx, s); err != nil {
		return figures{}, fmt.Errorf("%w%s", err, lastLogs(l))
	}
	f, err := b.measure(ctx)
	if err != nil {
		err = fmt.Errorf("%w%s", err, lastLogs(l))
	}
	return f, err
}

// setUp starts the system and waits until both pods reach each other.
func (b *bench) setUp(ctx context.Context, s system) error {
	ctx, cancel := context.WithTimeoutCause(ctx, setUpTime, fmt.Errorf("not connected after %s", setUpTime))
	defer cancel()
	var err error
	if b.gws, err = s.start(ctx, b.net); err != nil {
		return err
	}
	for i, side := range b.net.sides {
		if b.sink[i], err = startChild(side.pod.Host, "sink"); err != nil {
			return err
		}
		other := b.net.other(side)
		if _, err := side.pod.PingUntil(ctx, other.pod.IP, lab.PingOptions{}); err != nil {
			return err
		}
	}
	for _, sink := range b.sink { // an answer means that it listens
		if _, err := sink.counts(); err != nil {
			return err
		}
	}
	return nil
}

// tearDown ends what setUp has started; the lab ends the rest.
func (b *bench) tearDown() error {
	var errs []error
	for _, sink := range b.sink {
		if sink != nil {
			errs = append(errs, sink.stop())
		}
	}
	return errors.Join(errs...)
}

func (b *bench) measure(ctx context.Context) (figures, error) {
	var f figures
	if b.rest > 0 {
		if err := wait(ctx, b.rest); err != nil {
			return f, err
		}
		m, err := b.memory()
		if err != nil {
			return f, err
		}
		f.idle = m.now
	}
	var err error
	pods := [2]*lab.Pod{b.net.sides[0].pod, b.net.sides[1].pod}
	if f.latency, err = measureLatency(ctx, pods[0].Host, pods[1].IP, b.seconds/2); err != nil {
		return f, err
	}
	for from := range f.tcp {
		if f.tcp[from], err = b.tcp(ctx, from); err != nil {
			return f, err
		}
	}
	for i, size := range udpSizes {
		if f.udp[i], err = b.udp(ctx, size); err != nil {
			return f, err
		}
	}
	m, err := b.memory()
	f.peak = m.peak
	return f, err
}

// memory returns that of the gateway process that has more.
func (b *bench) memory() (memory, error) {
	var most memory
	for _, p := range b.gws {
		m, err := memoryOf(p)
		if err != nil {
			return memory{}, err
		}
		most.now, most.peak = max(most.now, m.now), max(most.peak, m.peak)
	}
	return most, nil
}

// sample is the state of everything at a moment.
type sample struct {
	at       time.Time
	received counts
	sent     counts
	gateway  [2]time.Duration
	lab      time.Duration
	machine  time.Duration
}

func (b *bench) sample(source, sink *child) (sample, error) {
	var s sample
	var errs [6]error
	s.at = time.Now()
	s.received, errs[0] = sink.counts()
	s.sent, errs[1] = source.counts()
	for i, p := range b.gws {
		s.gateway[i], errs[2+i] = cpuOf(p)
	}
	s.lab, errs[4] = cpuOfChildren()
	s.machine, errs[5] = cpuOfMachine()
	return s, errors.Join(errs[:]...)
}

// window runs a source on one side for warm-up and d, and samples at the start
// and the end of d.
func (b *bench) window(ctx context.Context, from int, warmUp, d time.Duration, args ...string) (first, last sample, err error) {
	source, err := startChild(b.net.sides[from].pod.Host, args...)
	if err != nil {
		return first, last, err
	}
	defer func() { err = errors.Join(err, source.stop()) }()
	sink := b.sink[1-from]
	if err := wait(ctx, warmUp); err != nil {
		return first, last, err
	}
	if first, err = b.sample(source, sink); err != nil {
		return first, last, err
	}
	if err := wait(ctx, d); err != nil {
		return first, last, err
	}
	last, err = b.sample(source, sink)
	return first, last, err
}

func (b *bench) tcp(ctx context.Context, from int) (tcpFigures, error) {
	to := netip.AddrPortFrom(b.net.sides[1-from].pod.IP, sinkPort)
	stop, err := b.profile(ctx, from)
	if err != nil {
		return tcpFigures{}, err
	}
	first, last, err := b.window(ctx, from, tcpWarmUp, b.seconds, "tcp", to.String(), b.congestion)
	if err := errors.Join(err, stop()); err != nil {
		return tcpFigures{}, fmt.Errorf("TCP from %s: %w", b.net.sides[from].name, err)
	}
	bytes := float64(last.received.bytes - first.received.bytes)
	if bytes == 0 {
		return tcpFigures{}, fmt.Errorf("TCP from %s: nothing arrived", b.net.sides[from].name)
	}
	perGB := func(d time.Duration) float64 { return d.Seconds() / (bytes / 1e9) }
	return tcpFigures{
		bitrate: bytes * 8 / last.at.Sub(first.at).Seconds(),
		gateway: [2]float64{
			perGB(last.gateway[from] - first.gateway[from]),
			perGB(last.gateway[1-from] - first.gateway[1-from]),
		},
		lab:     perGB(last.lab - first.lab),
		machine: perGB(last.machine - first.machine),
	}, nil
}

func (b *bench) udp(ctx context.Context, size int) (udpFigures, error) {
	to := netip.AddrPortFrom(b.net.sides[1].pod.IP, sinkPort)
	first, last, err := b.window(ctx, 0, udpWarmUp, b.seconds/2, "udp", to.String(), strconv.Itoa(size))
	if err != nil {
		return udpFigures{}, fmt.Errorf("UDP of %d bytes: %w", size, err)
	}
	received := float64(last.received.packets - first.received.packets)
	sent := float64(last.sent.packets - first.sent.packets)
	if received == 0 {
		return udpFigures{}, fmt.Errorf("UDP of %d bytes: nothing arrived", size)
	}
	return udpFigures{
		rate: received / last.at.Sub(first.at).Seconds(),
		loss: max(0, 1-received/sent),
	}, nil
}

// wait lets time pass.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
