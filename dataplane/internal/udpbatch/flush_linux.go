package udpbatch

import (
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// writeWait bounds how long a full socket holds up a Write.
	writeWait = 50 * time.Millisecond
	// The kernel does not tell when it has memory again.
	bufferPause = time.Millisecond
	bufferTries = 3
)

// flush sends b and returns how many messages the kernel took; false means that
// the socket takes no more now, and that the rest of b is counted as dropped.
func (s *sender) flush(b *txBatch) (sent int, ok bool) {
	tries := 0
	for off := 0; off < b.n; {
		s.send(b, off)
		for range s.took {
			sent += b.runs[off].n
			off++
		}
		if s.errno == 0 {
			tries = 0
			continue
		}
		r := b.runs[off]
		switch {
		case s.errno == unix.ENOSYS && !s.c.single.Load():
			s.c.single.Store(true)
		case s.errno == unix.EAGAIN || s.errno == unix.EBADF:
			s.abandon(b.runs[off:b.n])
			return sent, false
		case r.n > 1 && splits(s.errno):
			k, ok := s.resend(b, off)
			sent += k
			off++
			if !ok {
				s.abandon(b.runs[off:b.n])
				return sent, false
			}
		case (s.errno == unix.ENOBUFS || s.errno == unix.ENOMEM) && s.try:
			s.abandon(b.runs[off:b.n])
			return sent, false
		case (s.errno == unix.ENOBUFS || s.errno == unix.ENOMEM) && tries < bufferTries:
			tries++
			time.Sleep(bufferPause)
		default:
			s.c.count.drop(s.errno, r.n)
			off++
		}
	}
	return sent, true
}

// splits says whether a run may go through as single messages.
func splits(errno unix.Errno) bool {
	switch errno {
	case unix.EIO, unix.EINVAL, unix.EMSGSIZE, unix.ENOBUFS, unix.ENOMEM:
		return true
	}
	return false
}

// send makes one system call for b from run off on, and waits for room if there
// is none. It sets s.took and s.errno: EAGAIN when the socket stayed full, EBADF
// when it is closed.
func (s *sender) send(b *txBatch, off int) {
	s.b, s.off = b, off
	// Control takes no lock on the descriptor, so writers run in parallel.
	if err := s.c.raw.Control(s.direct); err != nil {
		s.took, s.errno = 0, unix.EBADF
		return
	}
	if s.errno != unix.EAGAIN || s.try {
		return
	}
	// Writers that wait share the deadline: it only moves on.
	_ = s.c.udp.SetWriteDeadline(time.Now().Add(writeWait))
	if err := s.c.raw.Write(s.polled); err != nil {
		s.took, s.errno = 0, unix.EAGAIN
		if errors.Is(err, net.ErrClosed) {
			s.errno = unix.EBADF
		}
	}
}

func (s *sender) once(fd uintptr) {
	for {
		s.took, s.errno = s.c.sendBatch(fd, s.b.hdrs[s.off:s.b.n])
		s.c.count.txCalls.Add(1)
		if s.errno != unix.EINTR {
			return
		}
	}
}

func (s *sender) ready(fd uintptr) bool {
	s.once(fd)
	return s.errno != unix.EAGAIN
}

// resend sends the messages of a refused run one by one. The iovecs of a run
// follow each other, so that sizes tell where a message ends.
func (s *sender) resend(b *txBatch, off int) (sent int, ok bool) {
	r := b.runs[off]
	s.c.gso.refused(s.c, s.errno, s.c.parseSockaddr(&b.names[off], b.hdrs[off].Namelen).Addr(), r)
	if s.split == nil {
		s.split = new(txBatch)
	}
	sp := s.split
	sp.n = r.n
	iov := r.iov
	for i := range r.n {
		one := run{iov: iov, n: 1, size: r.size}
		if i == r.n-1 {
			one.size = r.last
		}
		one.last = one.size
		for left := one.size; left > 0; iov++ {
			left -= int(s.iovs[iov].Len)
		}
		h := &sp.hdrs[i].Msghdr
		*h = b.hdrs[off].Msghdr // the same destination
		h.Iov = &s.iovs[one.iov]
		h.SetIovlen(iov - one.iov)
		s.control(h, &sp.ctls[i], s.locals[off], one)
		sp.runs[i] = one
	}
	return s.flush(sp)
}

// abandon counts runs that a full or closed socket does not take.
func (s *sender) abandon(runs []run) {
	n := 0
	for _, r := range runs {
		n += r.n
	}
	s.refused += n
	s.c.count.drop(s.errno, n)
}

func (c *counters) drop(errno unix.Errno, n int) {
	v := &c.txOther
	switch errno {
	case unix.EMSGSIZE:
		v = &c.txTooBig
	case unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ENETDOWN, unix.EADDRNOTAVAIL, unix.EINVAL:
		v = &c.txUnreachable
	case unix.EPERM, unix.EACCES:
		v = &c.txDenied
	case unix.ECONNREFUSED:
		v = &c.txRefused
	case unix.EAGAIN:
		v = &c.txFull
	case unix.ENOBUFS, unix.ENOMEM:
		v = &c.txNoBuffer
	case unix.EBADF:
		v = &c.txClosed
	}
	v.Add(uint64(n))
}
