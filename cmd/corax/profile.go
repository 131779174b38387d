package main

import (
	"fmt"
	"math"
	"time"

	"corax/dataplane/netstack"
	"corax/dataplane/wg"
	"corax/proxy/forward"
)

// profileName is the choice of --memory-profile.
type profileName string

// The profiles, by the megabytes that the agent may use.
const (
	profileAuto profileName = "auto" // by what the agent may use
	profile32   profileName = "32"
	profile64   profileName = "64"
	profile256  profileName = "256"
	profileFull profileName = "full"
)

func profileNames() []profileName {
	return []profileName{profileAuto, profile32, profile64, profile256, profileFull}
}

const mebibyte = 1 << 20

// megabytes returns how much memory a profile is made for, in bytes; zero for one
// that says nothing of it.
func (n profileName) megabytes() int64 {
	switch n {
	case profile32:
		return 32 * mebibyte
	case profile64:
		return 64 * mebibyte
	case profile256:
		return 256 * mebibyte
	default:
		return 0
	}
}

// profile says what an agent may hold at once so that it stays within its memory,
// whatever traffic comes. What has no room is dropped and counted.
type profile struct {
	name  profileName // never auto
	why   string      // in words
	limit int64       // what the agent may use, in bytes; zero: unknown
	heap  int64       // for debug.SetMemoryLimit, in bytes; zero: leave it
	gc    int         // percent, as GOGC
	width int         // threads at most
	// shrink is how often memory is given back that was used once; zero: once.
	shrink time.Duration
	bounds wg.Bounds
	// Of every UDP socket that carries packets: the kernel's queue in bytes, and the
	// buffers of 64 KiB.
	socketBuffer, slots int
	buffers             netstack.Buffers
	attempts            int // connections that are not established yet
	limits              forward.Limits
	streams             int // through one port map or proxy
}

// sizes are the profiles without what depends on the machine. Zero fields mean
// what a machine with memory enough has.
func sizes(n profileName) profile {
	switch n {
	case profile32:
		return profile{
			name: n, gc: 15, width: 1, shrink: time.Minute,
			bounds:       wg.Bounds{Batch: 16, InFlight: 32, Staged: 16, StagedAll: 32, Feed: 128, Handshakes: 100},
			socketBuffer: 256 << 10, slots: 2,
			buffers:  netstack.Buffers{Default: 32 << 10, Max: 64 << 10, Queue: 256 << 10},
			attempts: 64,
			limits:   forward.Limits{Connections: 64, Flows: 128, Pings: 16}, streams: 32,
		}
	case profile64:
		return profile{
			name: n, gc: 20, width: 2, shrink: time.Minute,
			bounds:       wg.Bounds{Batch: 32, InFlight: 64, Staged: 32, StagedAll: 64, Feed: 256, Handshakes: 200},
			socketBuffer: 512 << 10, slots: 4,
			buffers:  netstack.Buffers{Default: 64 << 10, Max: 128 << 10, Queue: 512 << 10},
			attempts: 128,
			limits:   forward.Limits{Connections: 128, Flows: 512, Pings: 32}, streams: 128,
		}
	case profile256:
		return profile{
			name: n, gc: garbage, width: maxWidth,
			bounds:       wg.Bounds{Batch: 64, InFlight: 256, Staged: 64, StagedAll: 256, Handshakes: 1000},
			socketBuffer: 2 << 20, slots: 8,
			buffers:  netstack.Buffers{Default: 128 << 10, Max: 512 << 10, Queue: 1 << 20},
			attempts: 512,
			limits:   forward.Limits{Connections: 512, Flows: 2048, Pings: 128}, streams: 512,
		}
	default:
		return profile{name: profileFull, gc: garbage, width: maxWidth}
	}
}

// chooseProfile says what fits. want is what the operator asked for.
func chooseProfile(want profileName, m memoryLimits) profile {
	limit, why := m.least()
	name := want
	if want == profileAuto || want == "" {
		name = profileFor(limit)
		why = fmt.Sprintf("%s gives the agent %d MB", why, limit/mebibyte)
		if limit == 0 {
			why = "nothing says how much memory there is"
		}
	} else {
		why = "asked for with --memory-profile " + string(want)
	}
	p := sizes(name)
	p.why, p.limit = why, limit
	if own := name.megabytes(); want == name && own != 0 && (limit == 0 || own < limit) {
		p.limit = own
	}
	if p.limit != 0 && m.environment == 0 {
		p.heap = heapFor(p.limit)
	}
	return p
}

// profileFor returns the largest profile that fits the limit in bytes; zero means
// that there is none.
func profileFor(limit int64) profileName {
	switch {
	case limit == 0 || limit >= 512*mebibyte:
		return profileFull
	case limit >= profile256.megabytes():
		return profile256
	case limit >= profile64.megabytes():
		return profile64
	default:
		return profile32
	}
}

// heapFor leaves an eighth of the limit, and at least 8 MB, for what the Go runtime
// does not count: the program itself, and the kernel's buffers.
func heapFor(limit int64) int64 {
	const least = 8 * mebibyte
	return max(limit-max(limit/8, least), least)
}

// memoryLimits are what bounds the memory of this process, in bytes; zero: nothing.
type memoryLimits struct {
	cgroup      int64
	machine     int64 // all of it
	environment int64 // GOMEMLIMIT
}

// machineShare is the part of a machine's memory that an agent takes for its own
// when nobody gave it a part: it is there for other programs' sake.
const machineShare = 4

// least returns the strictest limit, and whose it is.
func (m memoryLimits) least() (int64, string) {
	limit, whose := int64(math.MaxInt64), ""
	for _, l := range []struct {
		n     int64
		whose string
	}{
		{m.environment, "GOMEMLIMIT"}, {m.cgroup, "the control group"}, {m.machine / machineShare, "a quarter of the machine"},
	} {
		if l.n > 0 && l.n < limit {
			limit, whose = l.n, l.whose
		}
	}
	if whose == "" {
		return 0, ""
	}
	return limit, whose
}

// status is what status shows of a profile.
func (p profile) status() *MemoryStatus {
	return &MemoryStatus{Profile: string(p.name), Why: p.why, LimitBytes: p.limit, HeapLimitBytes: p.heap}
}
