//go:build !race

package natlab_test

// usualSeeds is how many scenarios TestRandom runs.
const usualSeeds = 1000
