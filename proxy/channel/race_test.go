//go:build race

package channel_test

// The race detector makes gVisor twenty times as slow.
const (
	manyStreams    = 300
	restStreams    = 50
	stalledStreams = 30
	transferBytes  = 512 << 10
)
