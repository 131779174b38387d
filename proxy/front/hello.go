package front

import (
	"encoding/binary"
	"errors"
	"strings"
)

// maxHello bounds what is read of a ClientHello, record headers included. Those of
// today have half a kilobyte, two with keys that withstand quantum computers.
const maxHello = 16 << 10

var (
	errHelloMore  = errors.New("the ClientHello is not complete")
	errHelloPlain = errors.New("these bytes are not TLS")
	errHelloBad   = errors.New("the ClientHello is malformed")
	errHelloLong  = errors.New("the ClientHello is too long")
)

// parseHello returns the server name in the ClientHello (RFC 8446 4.1.2, RFC 6066 3)
// that TLS records begin with: in lower case, empty when there is none. With
// [errHelloMore] more bytes may help: need of them in all, at the least.
func parseHello(records []byte) (name string, need int, err error) {
	message, need, err := handshake(records)
	if err != nil {
		return "", 0, err
	}
	if need > 0 {
		if len(records) >= maxHello {
			return "", 0, errHelloLong
		}
		return "", need, errHelloMore
	}
	name, err = serverName(message)
	return name, 0, err
}

// handshake joins the fragments of the first handshake message, without its header.
// While that is not complete, need is how many bytes there must be until more is
// known of it: to look at all of them for each byte that comes would cost a caller who
// sends single ones nothing, and us much.
func handshake(all []byte) (message []byte, need int, err error) {
	var joined []byte
	for records := all; ; {
		if len(records) > 0 && records[0] != 22 {
			if joined == nil {
				return nil, 0, errHelloPlain
			}
			return nil, 0, errHelloBad
		}
		if len(records) > 1 && records[1] != 3 {
			return nil, 0, errHelloPlain
		}
		if len(records) < 2 {
			return nil, len(all) + 1, nil
		}
		if len(records) < 5 {
			return nil, len(all) + 5 - len(records), nil
		}
		n := int(binary.BigEndian.Uint16(records[3:]))
		if n == 0 || n > maxHello {
			return nil, 0, errHelloBad
		}
		fragment := records[5:min(5+n, len(records))]
		joined = append(joined, fragment...)
		if len(joined) > 0 && joined[0] != 1 {
			return nil, 0, errHelloBad
		}
		lacking := max(4-len(joined), 1)
		if len(joined) == 0 {
			lacking = 1 // that says whether it is a ClientHello
		}
		if len(joined) >= 4 {
			size := int(joined[1])<<16 | int(joined[2])<<8 | int(joined[3])
			if size > maxHello {
				return nil, 0, errHelloLong
			}
			if len(joined) >= 4+size {
				return joined[4 : 4+size], 0, nil
			}
			lacking = 4 + size - len(joined)
		}
		if len(fragment) < n {
			return nil, len(all) + min(lacking, n-len(fragment)), nil
		}
		records = records[5+n:]
	}
}

// serverName walks over a ClientHello to its server_name extension.
func serverName(hello []byte) (string, error) {
	r := reader{rest: hello}
	r.skip(2 + 32)                  // version, random
	r.vector(1)                     // session
	r.vector(2)                     // cipher suites
	r.vector(1)                     // compression
	if len(r.rest) == 0 && !r.bad { // no extensions at all, as SSL 3
		return "", nil
	}
	extensions := reader{rest: r.vector(2)}
	if r.bad || len(r.rest) != 0 {
		return "", errHelloBad
	}
	name, seen := "", false
	for len(extensions.rest) > 0 {
		kind := extensions.uint(2)
		body := extensions.vector(2)
		if extensions.bad {
			return "", errHelloBad
		}
		if kind != 0 {
			continue
		}
		if seen {
			return "", errHelloBad
		}
		seen = true
		var ok bool
		if name, ok = hostName(body); !ok {
			return "", errHelloBad
		}
	}
	return name, nil
}

// hostName reads the body of a server_name extension, which has one name.
func hostName(body []byte) (string, bool) {
	r := reader{rest: body}
	list := reader{rest: r.vector(2)}
	kind := list.uint(1)
	name := list.vector(2)
	if r.bad || list.bad || len(r.rest) != 0 || len(list.rest) != 0 || kind != 0 {
		return "", false
	}
	if len(name) == 0 || len(name) > maxHost {
		return "", false
	}
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return "", false
		}
	}
	return strings.ToLower(string(name)), true
}

// reader takes lengths and vectors off a message. When something is missing it is
// bad and stays so.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) skip(n int) []byte {
	if r.bad || len(r.rest) < n {
		r.bad = true
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uint(size int) int {
	n := 0
	for _, b := range r.skip(size) {
		n = n<<8 | int(b)
	}
	return n
}

func (r *reader) vector(size int) []byte { return r.skip(r.uint(size)) }
