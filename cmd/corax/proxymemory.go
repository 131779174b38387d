package main

import "corax/proxy"

const (
	// streamShare is the part of the agent's memory that streams may hold together.
	streamShare = 4
	// assumedMemory is what there is where nobody says so, in bytes.
	assumedMemory = 1 << 30
)

// streamLimits bound what streams may hold to a part of what the agent may.
func streamLimits(p profile) proxy.Limits {
	limit := p.limit
	if limit <= 0 {
		limit = assumedMemory
	}
	return proxy.Limits{Memory: limit / streamShare}
}
