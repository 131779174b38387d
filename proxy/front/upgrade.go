package front

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"corax/proxy"
)

// answerWithin is how long a node has to answer a request for an upgrade.
const answerWithin = 30 * time.Second

// upgrade passes on a request to change the protocol. When the node agrees, both
// connections are joined, else its answer is passed on.
func (x *exchange) upgrade(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	node, err := x.dial(ctx)
	if err != nil {
		x.failed(w, err)
		return
	}
	defer node.Close()
	stop := context.AfterFunc(ctx, func() { _ = node.Close() })
	res, br, err := x.ask(node, r.WithContext(ctx))
	if err != nil {
		stop()
		x.failed(w, err)
		return
	}
	x.status = res.StatusCode
	if res.StatusCode != http.StatusSwitchingProtocols {
		x.err = x.decline(w, res)
		stop()
		return
	}
	if !stop() {
		x.err = context.Cause(ctx)
		return
	}
	if !strings.EqualFold(res.Header.Get("Upgrade"), x.up) {
		x.failed(w, proxy.Refuse(proxy.CodeBackend, fmt.Sprintf("node: it changed to %s, not to %s", quoted(res.Header.Get("Upgrade")), quoted(x.up))))
		return
	}
	x.err = x.tunnel(ctx, w, res, node, br)
}

// failed answers when the node did not. Of a caller that left nothing is counted.
func (x *exchange) failed(w http.ResponseWriter, err error) {
	if errors.Is(err, context.Canceled) {
		x.err = err
		x.answer(w, proxy.Refuse(proxy.CodeMalformed, "request: the caller closed its end before there was an answer"))
		return
	}
	if _, ok := errors.AsType[*proxy.Refusal](err); !ok {
		err = &proxy.Refusal{Code: proxy.CodeBackend, Text: "node: " + err.Error(), Err: err}
	}
	x.err = err
	x.front.cfg.Counters.Refused(proxy.CodeOf(err))
	x.answer(w, err)
}

// ask sends the request and reads the head of the answer.
func (x *exchange) ask(node net.Conn, r *http.Request) (*http.Response, *bufio.Reader, error) {
	out := r.Clone(r.Context())
	removeHopByHop(out.Header)
	x.rewrite(out)
	out.Header.Set("Connection", "Upgrade")
	out.Header.Set("Upgrade", x.up)
	if out.Header.Get("User-Agent") == "" {
		out.Header.Set("User-Agent", "") // net/http would add its own
	}
	out.Body, out.ContentLength = nil, 0
	_ = node.SetDeadline(time.Now().Add(answerWithin))
	if err := out.Write(node); err != nil {
		return nil, nil, &proxy.Refusal{Code: proxy.CodeBackend, Text: "node: it did not take the request", Err: err}
	}
	limited := &io.LimitedReader{R: node, N: maxHead}
	br := bufio.NewReaderSize(limited, 4<<10)
	res, err := http.ReadResponse(br, out)
	if err != nil {
		return nil, nil, &proxy.Refusal{Code: proxy.CodeBackend, Text: "node: no proper answer: " + err.Error(), Err: err}
	}
	limited.N = 1<<63 - 1
	_ = node.SetDeadline(time.Time{})
	return res, br, nil
}

// decline passes on an answer that is no upgrade.
func (x *exchange) decline(w http.ResponseWriter, res *http.Response) error {
	defer res.Body.Close()
	removeHopByHop(res.Header)
	for k, v := range res.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(res.StatusCode)
	buf := x.front.buffers.Get()
	defer x.front.buffers.Put(buf)
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{res.Body}, buf)
	return err
}

// tunnel tells the caller that the protocol changed, and copies until both
// directions have ended.
func (x *exchange) tunnel(ctx context.Context, w http.ResponseWriter, res *http.Response, node net.Conn, br *bufio.Reader) error {
	hijacked, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	x.hijacked = true
	caller := x.conn.Conn
	defer caller.Close()
	_ = hijacked.SetDeadline(time.Time{})
	toCaller, toNode := buffered(br), append(buffered(rw.Reader), x.conn.ahead...)
	removeHopByHop(res.Header)
	res.Header.Set("Connection", "Upgrade")
	res.Header.Set("Upgrade", x.up)
	if err := answerHead(caller, res, toCaller); err != nil {
		return err
	}
	x.counted.off.Store(true) // the splice counts from here on
	if node == net.Conn(x.counted) {
		node = x.counted.Conn
	}
	if err := x.s.send(node, toNode); err != nil {
		return err
	}
	return x.s.join(ctx, caller, node)
}

// buffered takes what a reader has read ahead.
func buffered(r *bufio.Reader) []byte {
	b, _ := r.Peek(r.Buffered())
	return append([]byte(nil), b...)
}

func answerHead(c net.Conn, res *http.Response, ahead []byte) error {
	_ = c.SetWriteDeadline(time.Now().Add(sayWithin))
	w := bufio.NewWriter(c)
	fmt.Fprintf(w, "HTTP/1.1 %d %s\r\n", res.StatusCode, http.StatusText(res.StatusCode))
	_ = res.Header.Write(w)
	_, _ = w.WriteString("\r\n")
	_, _ = w.Write(ahead)
	if err := w.Flush(); err != nil {
		return err
	}
	return c.SetWriteDeadline(time.Time{})
}

// removeHopByHop takes out the fields that are for one hop only (RFC 9110 7.6.1).
func removeHopByHop(h http.Header) {
	for _, v := range h.Values("Connection") {
		for name := range strings.SplitSeq(v, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range []string{
		"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
	} {
		h.Del(name)
	}
}
