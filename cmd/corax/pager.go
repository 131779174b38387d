package main

import (
	"bytes"
	"io"
)

// pager writes a page that changes: over the old one on a terminal, one after the
// other elsewhere.
type pager struct {
	w     io.Writer
	clear bool
	last  []byte
}

// show writes text unless it is what was shown last.
func (p *pager) show(text []byte) error {
	if p.last != nil && bytes.Equal(text, p.last) {
		return nil
	}
	var buf bytes.Buffer
	switch {
	case p.clear:
		buf.WriteString("\x1b[H\x1b[2J") // cursor home, clear screen
	case p.last != nil:
		buf.WriteByte('\n')
	}
	buf.Write(text)
	p.last = bytes.Clone(text)
	_, err := p.w.Write(buf.Bytes())
	return err
}
