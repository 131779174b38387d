package socks

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// The words of RFC 1928 and RFC 1929.
const (
	version     = 5
	authVersion = 1

	methodNone     = 0x00
	methodPassword = 0x02
	methodRefused  = 0xff

	cmdConnect   = 1
	cmdAssociate = 3

	addr4    = 1
	addrName = 3
	addr6    = 4
)

// reply is the outcome of a request.
type reply byte

const (
	replyOK          reply = 0
	replyFailed      reply = 1
	replyForbidden   reply = 2
	replyNoNetwork   reply = 3
	replyNoHost      reply = 4
	replyRefused     reply = 5
	replyTimeout     reply = 6
	replyBadCommand  reply = 7
	replyBadAddrType reply = 8
)

var (
	errVersion  = errors.New("not SOCKS5")
	errAddrType = errors.New("an address of an unknown type")
	errName     = errors.New("a name that is none")
	errFragment = errors.New("a fragment")
)

// target is a destination: a name, or an address as text.
type target struct {
	host string
	port uint16
}

// readGreeting reads the methods that a client knows.
func readGreeting(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	if head[0] != version {
		return nil, errVersion
	}
	methods := make([]byte, head[1])
	_, err := io.ReadFull(r, methods)
	return methods, err
}

// readPassword reads user and password.
func readPassword(r io.Reader) (user, password string, err error) {
	var b [256]byte
	if _, err := io.ReadFull(r, b[:1]); err != nil {
		return "", "", err
	}
	if b[0] != authVersion {
		return "", "", fmt.Errorf("authentication of version %d", b[0])
	}
	var both [2]string
	for i := range both {
		if _, err := io.ReadFull(r, b[:1]); err != nil {
			return "", "", err
		}
		n := int(b[0])
		if _, err := io.ReadFull(r, b[:n]); err != nil {
			return "", "", err
		}
		both[i] = string(b[:n])
	}
	return both[0], both[1], nil
}

// readRequest reads a request. With errAddrType the command is valid.
func readRequest(r io.Reader) (cmd byte, t target, err error) {
	var head [3]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, t, err
	}
	if head[0] != version {
		return 0, t, errVersion
	}
	t, err = readTarget(r)
	return head[1], t, err
}

func readTarget(r io.Reader) (target, error) {
	var b [256]byte
	if _, err := io.ReadFull(r, b[:1]); err != nil {
		return target{}, err
	}
	kind, n := b[0], 0
	switch kind {
	case addr4:
		n = 4
	case addr6:
		n = 16
	case addrName:
		if _, err := io.ReadFull(r, b[:1]); err != nil {
			return target{}, err
		}
		n = int(b[0])
	default:
		return target{}, errAddrType
	}
	if _, err := io.ReadFull(r, b[:n]); err != nil {
		return target{}, err
	}
	host := string(b[:n])
	if kind == addrName {
		if !goodName(host) {
			return target{}, errName
		}
	} else if a, ok := netip.AddrFromSlice(b[:n]); ok {
		host = a.Unmap().String()
	}
	var port [2]byte
	if _, err := io.ReadFull(r, port[:]); err != nil {
		return target{}, err
	}
	return target{host, uint16(port[0])<<8 | uint16(port[1])}, nil
}

// goodName reports whether s can be looked up, or is an address as text.
func goodName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '-' && c != '.' && c != '_' && c != ':' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return s != "" && len(s) <= 253
}

// appendAddr appends an address and a port.
func appendAddr(b []byte, a netip.AddrPort) []byte {
	ip := a.Addr().Unmap()
	switch {
	case ip.Is4():
		b = append(b, addr4)
	case ip.IsValid():
		b = append(b, addr6)
	default:
		ip = netip.IPv4Unspecified()
		b = append(b, addr4)
	}
	b = append(b, ip.AsSlice()...)
	return append(b, byte(a.Port()>>8), byte(a.Port()))
}

// appendReply appends the answer to a request.
func appendReply(b []byte, r reply, bound netip.AddrPort) []byte {
	return appendAddr(append(b, version, byte(r), 0), bound)
}

// parseDatagram reads what a client sends to be relayed. The payload aliases b.
func parseDatagram(b []byte) (target, []byte, error) {
	if len(b) < 4 {
		return target{}, nil, io.ErrUnexpectedEOF
	}
	if b[2] != 0 {
		return target{}, nil, errFragment
	}
	r := sliceReader{b[3:]}
	t, err := readTarget(&r)
	return t, r.b, err
}

// appendDatagram appends the head of what is relayed to a client.
func appendDatagram(b []byte, from netip.AddrPort) []byte {
	return appendAddr(append(b, 0, 0, 0), from)
}

// sliceReader reads a slice, and keeps the rest.
type sliceReader struct{ b []byte }

// Read implements [io.Reader].
func (r *sliceReader) Read(b []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b, r.b)
	r.b = r.b[n:]
	return n, nil
}
