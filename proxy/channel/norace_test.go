//go:build !race

package channel_test

const (
	manyStreams    = 10000
	restStreams    = 500
	stalledStreams = 500
	transferBytes  = 4 << 20
)
