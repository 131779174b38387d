//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"corax/integration/lab"
)

// userHZ is the unit of times in /proc: the same on every architecture that Go
// runs on.
const userHZ = 100

func ticks(n uint64) time.Duration { return time.Duration(n) * time.Second / userHZ }

// processCPU returns the parent of a process, and its user and system time, from
// the text of /proc/PID/stat.
func processCPU(stat []byte) (parent int, cpu time.Duration, err error) {
	// The second field is the name in parentheses, with any characters.
	i := bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[i+1:]))
	if i < 0 || len(fields) < 13 {
		return 0, 0, errors.New("malformed /proc/PID/stat")
	}
	parent, err = strconv.Atoi(fields[1])
	if err != nil {
		return 0, 0, err
	}
	user, err := strconv.ParseUint(fields[11], 10, 63)
	if err != nil {
		return 0, 0, err
	}
	system, err := strconv.ParseUint(fields[12], 10, 63)
	if err != nil {
		return 0, 0, err
	}
	return parent, ticks(user + system), nil
}

// machineCPU returns the time that all processors were busy with something,
// from the text of /proc/stat.
func machineCPU(stat []byte) (time.Duration, error) {
	line, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(line)
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, errors.New("malformed /proc/stat")
	}
	var busy uint64
	for i, f := range fields[1:8] { // user nice system idle iowait irq softirq
		n, err := strconv.ParseUint(f, 10, 63)
		if err != nil {
			return 0, err
		}
		if i != 3 && i != 4 {
			busy += n
		}
	}
	return ticks(busy), nil
}

// memory is the resident memory of a process in bytes.
type memory struct {
	now, peak uint64
}

// processMemory reads the text of /proc/PID/status.
func processMemory(status []byte) (memory, error) {
	var m memory
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		var to *uint64
		switch name {
		case "VmRSS":
			to = &m.now
		case "VmHWM":
			to = &m.peak
		default:
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 53)
		if err != nil {
			return memory{}, fmt.Errorf("%s: %w", name, err)
		}
		*to = n << 10
	}
	if m.now == 0 || m.peak == 0 {
		return memory{}, errors.New("no VmRSS and VmHWM in /proc/PID/status")
	}
	return m, nil
}

// cpuOf reads the CPU time of a process; nil has none.
func cpuOf(p *lab.Process) (time.Duration, error) {
	if p == nil {
		return 0, nil
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return 0, err
	}
	_, cpu, err := processCPU(b)
	return cpu, err
}

// cpuOfChildren sums up the CPU time of the processes that we have started: the
// gateways, what runs on other hosts, and the traffic.
func cpuOfChildren() (time.Duration, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		parent, cpu, err := processCPU(b)
		if err != nil {
			return 0, err
		}
		if parent == os.Getpid() {
			sum += cpu
		}
	}
	return sum, nil
}

// memoryOf reads the memory of a process; nil has none.
func memoryOf(p *lab.Process) (memory, error) {
	if p == nil {
		return memory{}, nil
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return memory{}, err
	}
	return processMemory(b)
}

// cpuOfMachine reads the busy time of all processors.
func cpuOfMachine() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return machineCPU(b)
}
