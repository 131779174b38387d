package front

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"corax/proxy"
)

// maxHead bounds the head of a request.
const maxHead = 64 << 10

// head is the head of a request, checked.
type head struct {
	method, target, version string
	// body says that the head announces one, or that it may.
	body bool
}

// readHead reads the head of a request and returns all bytes that it read, which
// are passed on as they are.
func readHead(c net.Conn) (h head, read []byte, err error) {
	buf := make([]byte, 4096)
	n := 0
	for {
		m, err := c.Read(buf[n:])
		n += m
		// The end may lie across two reads.
		if i := bytes.Index(buf[max(0, n-m-3):n], []byte("\r\n\r\n")); m > 0 && i >= 0 {
			h, err := parseHead(buf[:max(0, n-m-3)+i+4])
			return h, buf[:n], err
		}
		err = cut(err, n)
		switch {
		case errors.Is(err, errSilent):
			return head{}, nil, err
		case n > 0 && !tokenByte(buf[0]):
			return head{}, nil, badHead("these bytes are not HTTP")
		case errors.Is(err, os.ErrDeadlineExceeded):
			return head{}, nil, proxy.Refuse(proxy.CodeSlow, "request: no whole head within 10 s")
		case err != nil:
			return head{}, nil, &proxy.Refusal{Code: proxy.CodeMalformed, Text: "request: the head is cut off", Err: err}
		case n >= maxHead:
			return head{}, nil, badHead("the head has more than 64 KiB")
		}
		if n == len(buf) {
			buf = append(buf, make([]byte, min(len(buf), maxHead-n))...)
		}
	}
}

func badHead(format string, args ...any) *proxy.Refusal {
	return proxy.Refuse(proxy.CodeMalformed, "request: "+fmt.Sprintf(format, args...))
}

// parseHead checks the head of a request, its last empty line included, and more
// strictly than RFC 9112 asks for: whatever two readers could understand in two ways
// is refused, since a request that hides in another one lives on that.
func parseHead(b []byte) (head, error) {
	text, ok := strings.CutSuffix(string(b), "\r\n\r\n")
	if !ok {
		return head{}, badHead("the head has no end")
	}
	lines := strings.Split(text, "\r\n")
	h, err := parseRequestLine(lines[0])
	if err != nil {
		return head{}, err
	}
	var c fields
	for _, l := range lines[1:] {
		if err := c.add(l); err != nil {
			return head{}, err
		}
	}
	if h.version == "HTTP/1.1" && c.hosts != 1 || c.hosts > 1 {
		return head{}, badHead("%d Host fields", c.hosts)
	}
	if c.lengths > 0 && c.chunked {
		return head{}, badHead("both Content-Length and Transfer-Encoding")
	}
	if h.version != "HTTP/1.1" && c.chunked {
		return head{}, badHead("Transfer-Encoding in %s", h.version)
	}
	h.body = c.chunked || c.length > 0
	return h, nil
}

func parseRequestLine(l string) (head, error) {
	method, rest, ok := strings.Cut(l, " ")
	target, version, ok2 := strings.Cut(rest, " ")
	if !ok || !ok2 || !token(method) || target == "" {
		return head{}, badHead("no request line")
	}
	for i := range len(target) {
		if target[i] <= ' ' || target[i] >= 0x7f {
			return head{}, badHead("the request target has forbidden bytes")
		}
	}
	if version != "HTTP/1.1" && version != "HTTP/1.0" {
		return head{}, badHead("version %s", quoted(version))
	}
	return head{method: method, target: target, version: version}, nil
}

// fields counts what may be there once.
type fields struct {
	hosts, lengths int
	length         uint64
	chunked        bool
}

func (c *fields) add(l string) error {
	name, value, ok := strings.Cut(l, ":")
	if !ok || !token(name) { // also lines that continue the one before
		return badHead("a line that is no field")
	}
	value = strings.Trim(value, " \t")
	for i := range len(value) {
		if v := value[i]; v < ' ' && v != '\t' || v == 0x7f {
			return badHead("field %s has forbidden bytes", quoted(name))
		}
	}
	switch strings.ToLower(name) {
	case "host":
		c.hosts++
		if _, _, err := parseAuthority(value); err != nil && value != "" {
			return err
		}
	case "content-length":
		n, err := strconv.ParseUint(value, 10, 63)
		if c.lengths++; err != nil || c.lengths > 1 || value[0] == '+' {
			return badHead("a Content-Length that is not one number")
		}
		c.length = n
	case "transfer-encoding":
		if c.chunked || !strings.EqualFold(value, "chunked") {
			return badHead("a Transfer-Encoding other than chunked")
		}
		c.chunked = true
	}
	return nil
}

func token(s string) bool {
	for i := range len(s) {
		if !tokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}

// tokenByte reports whether a byte may be part of a method or field name (RFC 9110
// 5.6.2).
func tokenByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
