package hostnet

import (
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"corax/dataplane"
	"corax/dataplane/internal/offload"
)

const (
	// tunWait bounds how long Send waits for a full device.
	tunWait = 20 * time.Millisecond

	// tunGSOFailures is how many super-packets of one kind the kernel may
	// refuse in a row before no more are made. One refusal may be the packet's
	// fault; kernels with the bug refuse all.
	tunGSOFailures = 3
)

// tunWriter is the state of Send.
type tunWriter struct {
	mu       sync.Mutex
	coalesce offload.Coalescer
	failures [2]int // refusals in a row: TCP, UDP

	iov   []unix.Iovec
	errno unix.Errno
	// once and wait are methods as values, made once; writev is replaced by
	// tests.
	once   func(fd uintptr) bool
	wait   func(fd uintptr) bool
	writev func(fd uintptr, iov []unix.Iovec) unix.Errno
}

func (w *tunWriter) init(features int) {
	w.coalesce.TCP = features&unix.TUN_F_TSO4 != 0
	w.coalesce.UDP = features&unix.TUN_F_USO4 != 0
	w.iov = make([]unix.Iovec, 0, offload.MaxBatch)
	w.once, w.wait, w.writev = w.try, w.tryUntilTaken, writev
}

func (w *tunWriter) try(fd uintptr) bool {
	w.errno = w.writev(fd, w.iov)
	return true
}

func (w *tunWriter) tryUntilTaken(fd uintptr) bool {
	w.errno = w.writev(fd, w.iov)
	return w.errno != unix.EAGAIN
}

func writev(fd uintptr, iov []unix.Iovec) unix.Errno {
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
		if errno != unix.EINTR {
			return errno
		}
	}
}

// Send writes the batch to the kernel, joined into super-packets where that is
// possible. It may be called from several goroutines; they take turns. When the
// device takes nothing for 20 ms the packets are dropped.
func (t *TUN) Send(batch []dataplane.Packet) {
	w := &t.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(batch) > 0 {
		n := min(len(batch), offload.MaxBatch)
		for _, x := range w.coalesce.Coalesce(batch[:n]) {
			t.write(batch, x)
		}
		batch = batch[n:]
	}
}

func (t *TUN) write(batch []dataplane.Packet, x offload.Write) {
	errno := t.writeVec(x.Vec)
	if x.GSO == offload.GSONone {
		t.account(1, len(batch[x.Head].Data), errno)
		return
	}
	refused := errno == unix.EINVAL || errno == unix.EOPNOTSUPP
	t.noteGSO(x.GSO, refused)
	if !refused && errno == 0 {
		t.count.writeSuper.Add(1)
	}
	bytes := 0
	for i := x.Head; i >= 0; i = t.writer.coalesce.Next(i) {
		n := len(batch[i].Data)
		bytes += n
		if refused {
			t.account(1, n, t.writeVec(t.writer.coalesce.Plain(batch[i].Data)))
		}
	}
	if !refused {
		t.account(x.Count, bytes, errno)
	}
}

// noteGSO switches off a kind of super-packet that the kernel keeps refusing.
func (t *TUN) noteGSO(gso uint8, refused bool) {
	w := &t.writer
	kind, on := 0, &w.coalesce.TCP
	if gso == offload.GSOUDP {
		kind, on = 1, &w.coalesce.UDP
	}
	if !refused {
		w.failures[kind] = 0
		return
	}
	t.count.fallback.Add(1)
	if w.failures[kind]++; w.failures[kind] == tunGSOFailures && *on {
		*on = false
		t.log.Warn("kernel refuses super-packets, going on without", "name", t.name, "udp", kind == 1)
	}
}

// writeVec makes one write.
func (t *TUN) writeVec(vec [][]byte) unix.Errno {
	w := &t.writer
	w.iov = w.iov[:0]
	for _, b := range vec {
		if len(b) == 0 {
			continue
		}
		v := unix.Iovec{Base: &b[0]}
		v.SetLen(len(b))
		w.iov = append(w.iov, v)
	}
	if t.conn.Write(w.once) != nil {
		return unix.EBADF
	}
	if w.errno != unix.EAGAIN {
		return w.errno
	}
	_ = t.file.SetWriteDeadline(time.Now().Add(tunWait))
	err := t.conn.Write(w.wait)
	_ = t.file.SetWriteDeadline(time.Time{})
	if err != nil {
		return unix.EAGAIN
	}
	return w.errno
}

// account counts packets that left in one write.
func (t *TUN) account(packets, bytes int, errno unix.Errno) {
	n := uint64(packets)
	switch errno {
	case 0:
		t.count.writePackets.Add(n)
		t.count.writeBytes.Add(uint64(bytes))
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
		t.count.full.Add(n)
	case unix.EINVAL, unix.EMSGSIZE:
		t.count.refused.Add(n)
	case unix.EIO, unix.ENETDOWN:
		t.count.down.Add(n)
	default:
		t.count.unknown.Add(n)
	}
}
