package hostnet

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"corax/dataplane"
	"corax/dataplane/internal/offload"
)

const (
	// tunMaxRead is the most that one read returns: the header and the longest
	// IPv6 packet without jumbo option.
	tunMaxRead = offload.HeaderLen + 40 + 65535

	tunSlab  = 192 << 10 // plain packets stay where they were read: a batch, and the next read
	tunArena = 128 << 10 // super-packets are cut into here

	// tunBatch bounds a batch.
	tunBatch = 128
)

// tunReader is the state of Run.
type tunReader struct {
	slab, arena []byte
	off         int // used part of slab
	cut         int // used part of arena
	batch       []dataplane.Packet
	limit       int // packets in it, once it has one
	split       offload.Splitter

	// ready is poll as a value, made once.
	ready func(fd uintptr) bool
	n     int
	errno unix.Errno // of the last read
}

func (r *tunReader) init() {
	r.slab = make([]byte, tunSlab)
	r.arena = make([]byte, tunArena)
	r.batch = make([]dataplane.Packet, 0, tunBatch)
	r.ready = r.poll
}

// poll reads once. It returns false, for "wait", only with empty hands. The system
// call is raw because it never blocks: the Go scheduler would take the time to
// copy 64 KiB for blocking, and wake another thread.
func (r *tunReader) poll(fd uintptr) bool {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&r.slab[r.off])), tunMaxRead)
		if r.n, r.errno = int(n), errno; errno != unix.EINTR {
			break
		}
	}
	return r.errno != unix.EAGAIN || len(r.batch) > 0
}

// add puts a packet into the batch, which has room.
func (r *tunReader) add(pkt []byte) {
	r.batch = append(r.batch, dataplane.Packet{})
	r.batch[len(r.batch)-1].Data = pkt
	if len(r.batch) == 1 {
		r.limit = dataplane.Batch(cap(r.batch), len(pkt))
	}
}

// full reports whether the batch is to be handed over though more may come.
func (r *tunReader) full() bool { return len(r.batch) > 0 && len(r.batch) >= r.limit }

// Run reads packets and hands them to Receive until ctx is done or the TUN is
// closed; then it returns nil. The device stays attached, and Run may be called
// again, but never twice at a time.
func (t *TUN) Run(ctx context.Context) error {
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_ = t.file.SetReadDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() {
			<-woken
			_ = t.file.SetReadDeadline(time.Time{})
		}
	}()
	if err := t.readLoop(); ctx.Err() == nil && !t.closed.Load() {
		return fmt.Errorf("hostnet: read TUN %s: %w", t.name, err)
	}
	return nil
}

func (t *TUN) readLoop() error {
	r := &t.reader
	t.discard()
	for {
		if err := t.conn.Read(r.ready); err != nil {
			t.flush()
			return err
		}
		switch r.errno {
		case 0:
			t.take(r.slab[r.off : r.off+r.n])
		case unix.EAGAIN:
			t.flush()
		case unix.EBADFD:
			return errors.New("the device was deleted")
		default:
			return r.errno
		}
		if r.full() || len(r.slab)-r.off < tunMaxRead {
			t.flush()
		}
	}
}

// take turns one read into packets of the batch.
func (t *TUN) take(b []byte) {
	r := &t.reader
	h, err := offload.ParseHeader(b)
	if err != nil {
		t.count.malformed.Add(1)
		return
	}
	pkt := b[offload.HeaderLen:]
	if !h.Super() {
		if offload.Complete(h, pkt) != nil || len(pkt) == 0 {
			t.count.malformed.Add(1)
			return
		}
		r.add(pkt[:len(pkt):len(pkt)])
		r.off += (len(b) + 7) &^ 7
		return
	}
	t.count.readSuper.Add(1)
	switch err := r.split.Reset(h, pkt); {
	case err == nil:
		t.cutSuper()
	case errors.Is(err, offload.ErrUnsupported):
		t.count.unsupported.Add(1)
	default:
		t.count.malformed.Add(1)
	}
}

// cutSuper cuts a super-packet, however many packets it makes: it is read from
// the free part of the slab, where nothing is put before it is done.
func (t *TUN) cutSuper() {
	r := &t.reader
	for size := r.split.Size(); size > 0; size = r.split.Size() {
		if r.full() || len(r.arena)-r.cut < size {
			t.flush()
		}
		p := r.split.Next(r.arena[r.cut:])
		r.cut += (size + 7) &^ 7
		r.cut = min(r.cut, len(r.arena))
		r.add(p)
	}
}

// flush hands the batch over.
func (t *TUN) flush() {
	r := &t.reader
	if len(r.batch) > 0 {
		n := 0
		for i := range r.batch {
			n += len(r.batch[i].Data)
		}
		t.count.readPackets.Add(uint64(len(r.batch)))
		t.count.readBytes.Add(uint64(n))
		t.receive.Send(r.batch)
	}
	t.discard()
}

func (t *TUN) discard() {
	r := &t.reader
	r.batch, r.off, r.cut = r.batch[:0], 0, 0
}
