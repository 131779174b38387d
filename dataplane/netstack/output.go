package netstack

import (
	"context"
	"time"

	"corax/dataplane"
	"corax/dataplane/internal/offload"
)

const (
	outputBatch = 128
	// outputArena holds the packets that one batch cuts out of super-packets.
	outputArena = 128 << 10
	// restAfter is how long the memory of a burst waits for the next one.
	restAfter = 200 * time.Millisecond
)

// output empties the queue of a link into a Sender. It belongs to Run.
type output struct {
	link  *link
	send  dataplane.Sender
	count *counters
	spare queue
	arena []byte
	cut   int // used part of arena
	batch []dataplane.Packet
	split offload.Splitter
	burst bool // since the last rest more was queued at once than an idle queue keeps
}

func newOutput(l *link, send dataplane.Sender, c *counters) *output {
	return &output{link: l, send: send, count: c, batch: make([]dataplane.Packet, 0, outputBatch)}
}

// run sends what is queued until ctx is done; then it closes the stack with end,
// and sends the resets of what was still open.
func (o *output) run(ctx context.Context, end func() error) error {
	timer := time.NewTimer(restAfter)
	timer.Stop()
	defer timer.Stop()
	armed := false
	for {
		select {
		case <-ctx.Done():
			err := end()
			o.drain()
			return err
		case <-o.link.wake:
			o.drain()
			if o.burst && !armed {
				armed = true
				timer.Reset(restAfter)
			}
		case <-timer.C:
			if armed = o.burst; armed {
				o.burst = false
				timer.Reset(restAfter)
			} else {
				o.rest()
			}
		}
	}
}

// rest gives back what bursts needed.
func (o *output) rest() {
	o.spare, o.arena = queue{}, nil
	o.link.rest()
}

// drain sends everything that is queued, and what is queued meanwhile.
func (o *output) drain() {
	for {
		q := o.link.take(o.spare)
		o.burst = o.burst || len(q.bytes) > queueKeep
		for _, it := range q.items {
			o.add(it.header, q.bytes[it.from:it.to:it.to])
		}
		o.flush()
		o.spare = q
		if len(q.items) == 0 {
			return
		}
	}
}

func (o *output) add(h offload.Header, p []byte) {
	if !h.Super() {
		if offload.Complete(h, p) != nil {
			o.count.malformed.Add(1)
			return
		}
		o.push(p)
		return
	}
	if o.split.Reset(h, p) != nil {
		o.count.malformed.Add(1)
		return
	}
	if o.arena == nil {
		o.arena, o.burst = make([]byte, outputArena), true
	}
	for size := o.split.Size(); size > 0; size = o.split.Size() {
		if len(o.arena)-o.cut < size {
			o.flush()
		}
		p := o.split.Next(o.arena[o.cut:])
		o.cut += size
		o.push(p)
	}
}

func (o *output) push(p []byte) {
	o.batch = append(o.batch, dataplane.Packet{Data: p})
	if len(o.batch) == outputBatch {
		o.flush()
	}
}

func (o *output) flush() {
	if len(o.batch) > 0 {
		o.count.tx.Add(uint64(len(o.batch)))
		o.send.Send(o.batch)
	}
	o.batch, o.cut = o.batch[:0], 0
}
