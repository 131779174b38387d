package datagram

import (
	"errors"
	"sync"
	"syscall"
)

// Max is the largest payload, in bytes.
const Max = 65535

// Head is the room before a payload for what a protocol puts there, in bytes.
const Head = 32

// Buffer holds a datagram: Head bytes, and the payload.
type Buffer [Head + Max]byte

// Payload is where to read into.
func (b *Buffer) Payload() []byte { return b[Head:] }

// Pool keeps the buffers that nobody holds now. The zero Pool is ready; its methods may
// be called from several goroutines at once.
type Pool struct{ pool sync.Pool }

// Get returns a buffer with anything in it, until Put.
func (p *Pool) Get() *Buffer {
	if b, ok := p.pool.Get().(*Buffer); ok {
		return b
	}
	return new(Buffer)
}

// Put gives a buffer back; nil does nothing.
func (p *Pool) Put(b *Buffer) {
	if b != nil {
		p.pool.Put(b)
	}
}

// waiter is a connection that can be waited for, as those of the netstack.
type waiter interface {
	// Wait returns when a read would not block.
	Wait() error
}

// Wait returns nil when a datagram is there to read from c, one of the host's own
// sockets or of the netstack. Any error is what the read would have returned, the
// deadline's among them, and is not told again. Only one may read c at a time. Of a
// connection of any other kind it returns nil at once, so that the read waits.
func Wait(c any) error {
	switch c := c.(type) {
	case waiter:
		return c.Wait()
	case syscall.Conn:
		return waitKernel(c)
	default:
		return nil
	}
}

func waitKernel(c syscall.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Read(func(fd uintptr) bool {
		var first [1]byte
		for {
			_, _, failed = syscall.Recvfrom(int(fd), first[:], syscall.MSG_PEEK)
			if !errors.Is(failed, syscall.EINTR) {
				return !errors.Is(failed, syscall.EAGAIN)
			}
		}
	}); err != nil {
		return err
	}
	return failed
}
