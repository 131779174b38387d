package userns

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"syscall"

	"corax/dataplane/hostnet"
)

// A message is four bytes, its length in network order, and as many of JSON.
const (
	// maxMessage bounds a message in bytes: the routes of some 100,000 nodes.
	maxMessage = 16 << 20
	// maxText bounds the words of an error in bytes.
	maxText = 64 << 10
)

// What the helper is asked for.
const (
	opOpen     = "open"     // the first: Open; the answer is followed by a byte with the TUN's descriptor
	opApply    = "apply"    // State
	opWatch    = "watch"    // events from now on
	opPrefixes = "prefixes" // of the namespace
	opSocket   = "socket"   // Socket; the answer is followed by a byte with its descriptor
	opClose    = "close"    // remove everything
)

// request is what the agent asks for.
type request struct {
	Op     string         `json:"op"`
	Open   *openRequest   `json:"open,omitempty"`
	State  *hostnet.State `json:"state,omitempty"`
	Socket *socketRequest `json:"socket,omitempty"`
}

// openRequest is what the helper needs of a Config.
type openRequest struct {
	Name       string       `json:"name"`
	MTU        int          `json:"mtu"`
	TakeOver   bool         `json:"takeOver,omitempty"`
	HostSource []netip.Addr `json:"hostSource,omitempty"`
}

// socketRequest is a socket of the namespace.
type socketRequest struct {
	Kind socketKind `json:"kind"`
	V6   bool       `json:"v6,omitempty"`
}

// socketKind is what a socket is for.
type socketKind string

const (
	kindTCP  socketKind = "tcp"
	kindUDP  socketKind = "udp"
	kindPing socketKind = "ping" // an unprivileged ICMP socket
)

// check refuses what no agent asks for.
func (r *request) check() error {
	var has bool
	switch r.Op {
	case opOpen:
		has = r.Open != nil
	case opApply:
		has = r.State != nil
	case opSocket:
		has = r.Socket != nil && slices.Contains([]socketKind{kindTCP, kindUDP, kindPing}, r.Socket.Kind)
	case opWatch, opPrefixes, opClose:
		has = true
	default:
		return fmt.Errorf("unknown request %q", r.Op)
	}
	if !has {
		return fmt.Errorf("request %q without what it is about", r.Op)
	}
	return nil
}

// response is the answer to a request.
type response struct {
	Error    string            `json:"error,omitempty"`
	Errno    syscall.Errno     `json:"errno,omitempty"` // what the system said
	Problems []hostnet.Problem `json:"problems,omitempty"`
	Prefixes []netip.Prefix    `json:"prefixes,omitempty"`
}

// fail puts an error into the answer.
func (r *response) fail(err error) {
	if err == nil {
		return
	}
	r.Error = err.Error()
	r.Error = r.Error[:min(len(r.Error), maxText)]
	_ = errors.As(err, &r.Errno)
}

// err is the error in the answer.
func (r *response) err() error {
	if r.Error == "" {
		return nil
	}
	return &insideError{r.Error, r.Errno}
}

// writeMessage writes one message.
func writeMessage(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return fmt.Errorf("a message of %d bytes is too long", len(b))
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...))
	return err
}

// readMessage reads one message and nothing beyond it. Memory is taken for what comes,
// not for what was announced. io.EOF says that there is none.
func readMessage(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	if n > maxMessage {
		return fmt.Errorf("a message of %d bytes is announced", n)
	}
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r, n); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if err := json.Unmarshal(b.Bytes(), v); err != nil {
		return fmt.Errorf("read a message: %w", err)
	}
	return nil
}

// readRequest reads one request and checks it.
func readRequest(r io.Reader) (*request, error) {
	q := new(request)
	if err := readMessage(r, q); err != nil {
		return nil, err
	}
	return q, q.check()
}
