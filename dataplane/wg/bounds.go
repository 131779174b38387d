package wg

import (
	"cmp"
	"errors"
	"runtime"
)

// Bounds limits what a Device holds at once. Each packet or message inside
// wireguard-go has a buffer of 64 KiB, so on a small device these are most of
// the memory. A zero field means what a machine with memory enough has.
type Bounds struct {
	// Batch is the number of packets per Read, Write and system call, at most and
	// by default 128. wireguard-go keeps four batches of buffers ready.
	Batch int
	// InFlight bounds the packets inside wireguard-go, each way, over all peers
	// with a session; by default one batch per thread. A batch more may be in.
	InFlight int
	// Staged bounds the packets that wait for the session of one peer, by default
	// and at most 64, and StagedAll those of all peers; zero: no other bound.
	Staged, StagedAll int
	// Feed bounds the messages from streams and extra sockets that wait for
	// wireguard-go, by default and at most 1024; a quarter of them may be of one.
	Feed int
	// Handshakes bounds the handshake messages a second that wireguard-go gets,
	// which queues up to 1024; as many as in a fifth of a second may come at
	// once. Zero: no bound of our own.
	Handshakes int
	// SocketBuffer is what the kernel may queue for a socket each way, in bytes;
	// zero means 4 MiB.
	SocketBuffer int
	// Slots bounds the buffers of 64 KiB that a socket reads into, by default and
	// at most 16.
	Slots int
}

func (b Bounds) check() error {
	for _, n := range []int{b.Batch, b.InFlight, b.Staged, b.StagedAll, b.Feed, b.Handshakes, b.SocketBuffer, b.Slots} {
		if n < 0 {
			return errors.New("wg: a bound below zero")
		}
	}
	return nil
}

// whole replaces the zero fields but those that mean no bound.
func (b Bounds) whole() Bounds {
	b.Batch = min(cmp.Or(b.Batch, batchSize), batchSize)
	b.InFlight = cmp.Or(b.InFlight, b.Batch*runtime.GOMAXPROCS(0))
	b.Staged = min(cmp.Or(b.Staged, maxStaged), maxStaged)
	b.Feed = min(cmp.Or(b.Feed, feedSize), feedSize)
	return b
}
