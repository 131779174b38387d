package wg

import (
	"errors"

	"corax/dataplane/internal/udpbatch"
)

// Raw is a datagram that is not WireGuard's: STUN, a probe.
type Raw struct {
	Path Path
	Data []byte
	// TTL is the time to live or hop limit of the UDP datagram; zero means the
	// system's. DF forbids to fragment it. Over a relay both are for the way to
	// the hub; over a stream they mean nothing.
	TTL int
	DF  bool
}

// A SendError says why one Raw was not sent: errors.Is knows the system's
// errors, such as syscall.EMSGSIZE for a datagram too big for the link.
type SendError struct {
	Index int // in the batch
	Err   error
}

var (
	errBadPath  = errors.New("wg: bad path")
	errNoSocket = errors.New("wg: no such socket")
	errFull     = errors.New("wg: the stream is full")
)

// SendRaw sends each datagram over its own path, which need not be a peer's, at
// once. It returns what could not be sent; the drops are counted too. Safe for
// concurrent use.
func (d *Device) SendRaw(batch []Raw) []SendError {
	var failed []SendError
	for i := range batch {
		if err := d.sendRaw(&batch[i]); err != nil {
			failed = append(failed, SendError{i, err})
		}
	}
	return failed
}

func (d *Device) sendRaw(m *Raw) error {
	w, ok := d.way(nil, m.Path)
	if !ok {
		d.drops.add(dropNoPath, 1)
		return errBadPath
	}
	var header []byte
	if w.via != nil {
		header = make([]byte, relayHeader)
		putLabel(header, w.label)
		hub := w.via.path.Load()
		if hub == nil || hub.via != nil {
			d.drops.add(dropNoPath, 1)
			return errNoPath
		}
		w = hub.way
	}
	if w.stream != nil {
		data := m.Data
		if header != nil {
			data = append(header, data...)
		}
		if w.stream.Send([][]byte{data}) == 0 {
			d.drops.add(dropStream, 1)
			return errFull
		}
		return nil
	}
	c := d.bind.conn(&w)
	if c == nil {
		d.drops.add(d.bind.noSocket(&w), 1)
		return errNoSocket
	}
	msg := udpbatch.Message{To: w.to, Local: w.local, Header: header, Payload: m.Data}
	return c.WriteOne(msg, udpbatch.Options{TTL: m.TTL, DF: m.DF})
}
