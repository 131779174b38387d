package preamble

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"corax/proxy"
)

const maxText = 255

// AppendAnswer appends the answer that says r; nil: served. Text that is too long
// is cut.
func AppendAnswer(b []byte, r *proxy.Refusal) []byte {
	if r == nil || r.Code == proxy.CodeNone {
		return append(b, byte(proxy.CodeNone), 0)
	}
	text := Line(r.Text)
	b = append(b, byte(r.Code), byte(len(text)))
	return append(b, text...)
}

// ReadAnswer reads an answer, and not a byte more. A refusal is its result, nil
// means served; the error is that of a stream that ended before, or of an answer
// that is none.
func ReadAnswer(r io.Reader) (*proxy.Refusal, error) {
	var buf [2 + maxText]byte
	if _, err := io.ReadFull(r, buf[:2]); err != nil {
		return nil, fmt.Errorf("preamble: read the answer: %w", err)
	}
	code := proxy.Code(buf[0])
	text := buf[2 : 2+int(buf[1])]
	if code == proxy.CodeNone {
		if len(text) > 0 {
			return nil, fmt.Errorf("preamble: read the answer: %w", ErrMalformed)
		}
		return nil, nil
	}
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, fmt.Errorf("preamble: read the answer: %w", unexpected(err))
	}
	return proxy.Refuse(code, Line(string(text))), nil
}

// Line makes one line of printable text of s, of at most 255 bytes: it comes from
// another machine, and goes into logs and answers.
func Line(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) <= maxText {
		return s
	}
	n := maxText
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
