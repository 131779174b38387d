package front

import (
	"context"
	"errors"
	"time"

	"corax/proxy"
	"corax/proxy/splice"
)

// maxPath bounds the path in an audit line.
const maxPath = 512

// record writes the audit line of a stream that was served. Status is that of the
// answer where HTTP is read here, else 0.
func (f *Front) record(s *stream, r request, status int, err error) {
	f.cfg.Counters.Ended(err)
	info := s.live.Info()
	attrs := requestAttrs(r)
	if info.Via != "" {
		attrs = append(attrs, "via", info.Via)
	}
	attrs = append(attrs,
		"source", info.Caller.String(), "duration", time.Since(s.began).Round(time.Millisecond),
		"upBytes", info.Up, "downBytes", info.Down)
	if status != 0 {
		attrs = append(attrs, "status", status)
	}
	f.audit.Info("stream", append(attrs, "end", ending(err))...)
}

// refuse counts a request that was not served and writes its audit line. Of many
// at once only some are written, and then how many were not.
func (f *Front) refuse(a *arrival, r request, err error) {
	if errors.Is(err, errSilent) {
		return
	}
	code := proxy.CodeOf(err)
	f.cfg.Counters.Refused(code)
	if !f.lines.Allow() {
		f.unwritten.Add(1)
		return
	}
	attrs := append(requestAttrs(r), "source", a.from.String(), "reason", code.String(), "err", err)
	if n := f.unwritten.Swap(0); n > 0 {
		attrs = append(attrs, "unwritten", n)
	}
	f.audit.Info("refused", attrs...)
}

func requestAttrs(r request) []any {
	attrs := []any{"front", r.front}
	if r.target.Node != "" {
		attrs = append(attrs, "node", r.target.Node, "port", r.target.Port)
	}
	if r.user != "" {
		attrs = append(attrs, "user", r.user)
	}
	if r.path != "" {
		attrs = append(attrs, "method", r.method, "path", r.path[:min(len(r.path), maxPath)])
	}
	return attrs
}

// ending says how a stream ended, in words without content.
func ending(err error) string {
	if err == nil {
		return "done"
	}
	if errors.Is(err, context.Canceled) {
		return "caller: left"
	}
	if end, ok := errors.AsType[*splice.EndError](err); ok {
		who := "caller"
		if end.B {
			who = "node"
		}
		return who + ": " + end.Op + ": " + end.Err.Error()
	}
	return err.Error()
}
