//go:build race

package natlab_test

// usualSeeds is how many scenarios TestRandom runs; with the race detector each takes
// six times as long.
const usualSeeds = 100
