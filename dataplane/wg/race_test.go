//go:build race

package wg

// The race detector makes sync.Pool forget at random, so allocations are not
// counted under it.
const raceEnabled = true
