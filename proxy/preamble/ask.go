package preamble

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"corax/proxy"
)

const (
	magic   = "cxp"
	version = 1
	// askHead is the part of an ask that has a fixed length.
	askHead = len(magic) + 2
	maxName = 253 // as of a Kubernetes node, and with the port within one byte
)

// ErrMalformed is in the error of what is no preamble of ours, as opposed to those
// of a stream that ended or was too slow.
var ErrMalformed = errors.New("not a request")

// AppendAsk appends the ask for t.
func AppendAsk(b []byte, t proxy.Target) ([]byte, error) {
	if err := check(t); err != nil {
		return b, fmt.Errorf("preamble: %w", err)
	}
	b = append(b, magic...)
	b = append(b, version, byte(2+len(t.Node)))
	b = binary.BigEndian.AppendUint16(b, t.Port)
	return append(b, t.Node...), nil
}

// ReadAsk reads an ask, and not a byte more.
func ReadAsk(r io.Reader) (proxy.Target, error) {
	t, err := readAsk(r)
	if err != nil {
		return proxy.Target{}, fmt.Errorf("preamble: read: %w", err)
	}
	return t, nil
}

func readAsk(r io.Reader) (proxy.Target, error) {
	var buf [256]byte
	head := buf[:askHead]
	if _, err := io.ReadFull(r, head); err != nil {
		return proxy.Target{}, err
	}
	if string(head[:len(magic)]) != magic {
		return proxy.Target{}, fmt.Errorf("%w: it does not begin with %q", ErrMalformed, magic)
	}
	if v := head[len(magic)]; v != version {
		return proxy.Target{}, fmt.Errorf("%w: version %d, not %d", ErrMalformed, v, version)
	}
	body := buf[:head[askHead-1]]
	if len(body) < 2 {
		return proxy.Target{}, fmt.Errorf("%w: no port", ErrMalformed)
	}
	if _, err := io.ReadFull(r, body); err != nil {
		return proxy.Target{}, unexpected(err)
	}
	t := proxy.Target{Node: string(body[2:]), Port: binary.BigEndian.Uint16(body)}
	if err := check(t); err != nil {
		return proxy.Target{}, err
	}
	return t, nil
}

// check says what is wrong with a target: names are 1 to 253 visible ASCII
// characters, as in the Gateway objects.
func check(t proxy.Target) error {
	if t.Node == "" || len(t.Node) > maxName {
		return fmt.Errorf("%w: a node name of %d bytes", ErrMalformed, len(t.Node))
	}
	for _, c := range []byte(t.Node) {
		if c <= ' ' || c > '~' {
			return fmt.Errorf("%w: a node name with the byte %#02x", ErrMalformed, c)
		}
	}
	if t.Port == 0 {
		return fmt.Errorf("%w: port 0", ErrMalformed)
	}
	return nil
}

// unexpected is err, where the end comes in the middle.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
