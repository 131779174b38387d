//go:build race

package fabric

// Under the race detector sync.Pool drops items at random, so that allocations
// say nothing.
const raceDetector = true
