package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// pipeListener hands out the other ends of pipes, which live in a bubble.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l pipeListener) Close() error {
	close(l.done)
	return nil
}

func (l pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// A stream goes on for longer than a request or an answer may take.
func TestLongPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 300
		local := &local{agent: agentAPI{Ping: func(ctx context.Context, _ string, n int, reply func(PingReply)) error {
			for seq := range n {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(time.Second):
					reply(PingReply{Seq: seq + 1})
				}
			}
			return nil
		}}}
		ln := pipeListener{make(chan net.Conn), make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- serve(ctx, ln, http.HandlerFunc(local.servePing), nil) }()

		ours, theirs := net.Pipe()
		ln.conns <- theirs
		c := newClient("unused")
		c.http.Transport = &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return ours, nil }}
		last := 0
		if err := c.Ping(ctx, "edge-a", n, func(p PingReply) bool { last = p.Seq; return true }); err != nil {
			t.Error(err)
		}
		if last != n {
			t.Errorf("the stream ended after %d replies, want %d", last, n)
		}
		c.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// What the agent tells of a peer survives the line form.
func TestPingReplyJSON(t *testing.T) {
	doc, err := json.Marshal(PingReply{Seq: 1, Gateway: "g", Path: Path{Kind: PathDirect, Via: []string{}}, RTTMillis: 1.5})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"seq":1,"gateway":"g","node":"","address":"","rttMillis":1.5,"path":{"kind":"direct","endpoint":"","via":[],"why":""}}`
	if string(doc) != want {
		t.Errorf("%s, want %s", doc, want)
	}
}
