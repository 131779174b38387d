package front

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"corax/proxy"
)

// TestSlow has callers that say less than they should, on a clock of its own.
func TestSlow(t *testing.T) {
	hello := helloFor(&tls.Config{ServerName: "edge1"})
	for _, c := range []struct {
		name, kind string
		say        []byte
		every      time.Duration
		answer     string
	}{
		{"silent on TLS", kindTLS, nil, 0, ""},
		{"hello byte by byte", kindTLS, hello, time.Second, ""},
		{"silent on HTTP", kindHTTP, nil, 0, "HTTP/1.1 408 Request Timeout"},
		{"head byte by byte", kindHTTP, []byte("GET /metrics HTTP/1.1\r\n"), time.Second, "HTTP/1.1 408 Request Timeout"},
		{"many fields, slowly", kindHTTP, bytes.Repeat([]byte("GET: x\r\n"), 1000), 10 * time.Millisecond, "HTTP/1.1 4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := routing(t)
				here, there := net.Pipe()
				began := time.Now()
				done := make(chan struct{})
				go func() {
					f.serve(context.Background(), &arrival{Conn: there, kind: c.kind, began: began, leave: func() {}})
					close(done)
				}()
				go func() {
					for _, b := range c.say {
						if _, err := here.Write([]byte{b}); err != nil {
							return
						}
						select {
						case <-time.After(c.every):
						case <-done:
							return
						}
					}
				}()
				got, _ := io.ReadAll(here)
				<-done
				if took := time.Since(began); took > sayWithin+time.Second {
					t.Errorf("took %v", took)
				}
				if !strings.HasPrefix(string(got), c.answer) || c.answer == "" && len(got) != 0 {
					t.Errorf("answer %q", got)
				}
				if s := f.cfg.Counters.Snapshot(); s.Refused[proxy.CodeSlow]+s.Refused[proxy.CodeMalformed] != 1 {
					t.Errorf("counted %v", s.Refused)
				}
				_ = here.Close()
			})
		})
	}
}

// TestStall shows that an end which takes nothing is counted, once, and when.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Uint64
		w := stallWatch{count: &n}
		for i, c := range []struct {
			takes time.Duration
			want  uint64
		}{{0, 0}, {9 * time.Second, 0}, {11 * time.Second, 1}, {time.Hour, 1}} {
			done := w.watch()
			time.Sleep(c.takes)
			done()
			if n.Load() != c.want {
				t.Errorf("write %d: %d stalls, want %d", i, n.Load(), c.want)
			}
		}
	})
}

// TestSilent shows that health checks are neither counted nor written down.
func TestSilent(t *testing.T) {
	w := run(t, plan(), nil)
	for _, kind := range []string{kindTLS, kindHTTP} {
		c := dial(t, "tcp", w.addr(kind))
		_ = c.(*net.TCPConn).CloseWrite()
		if b, err := io.ReadAll(c); len(b) != 0 || err != nil {
			t.Errorf("%s answers %q, %v", kind, b, err)
		}
	}
	w.stop()
	for code, n := range w.cfg.Counters.Snapshot().Refused {
		if n != 0 {
			t.Errorf("%d refusals %s", n, code)
		}
	}
	if log := w.log.String(); log != "" {
		t.Errorf("log:\n%s", log)
	}
}

// TestPendingLimit shows that those who say nothing cannot keep others out for
// ever, and that they are bounded.
func TestPendingLimit(t *testing.T) {
	w := run(t, plan(), func(c *Config) { c.MaxPending = 4 }) // 2 by one address
	w.httpNode(proxy.Target{Node: "Edge1", Port: 9100}, nil, http.HandlerFunc(echoNode))
	silent := []net.Conn{dial(t, "tcp", w.addr(kindHTTP)), dial(t, "tcp", w.addr(kindTLS))}
	eventually(t, "two pending", func() bool {
		w.pending.mu.Lock()
		defer w.pending.mu.Unlock()
		return w.pending.total == 2
	})
	if b, _ := io.ReadAll(dial(t, "tcp", w.addr(kindHTTP))); len(b) != 0 {
		t.Errorf("answer %q", b)
	}
	w.wantRefused(proxy.CodeLimit, 1)
	_ = silent[0].Close()
	eventually(t, "an answer", func() bool {
		c := dial(t, "tcp", w.addr(kindHTTP))
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: edge1:9100\r\n\r\n")
		b, _ := io.ReadAll(c)
		return bytes.HasPrefix(b, []byte("HTTP/1.1 200"))
	})
}

// TestLingers shows that who was refused and stays is not waited for.
func TestLingers(t *testing.T) {
	w := run(t, plan(), nil)
	for _, kind := range []string{kindTLS, kindHTTP} {
		c := dial(t, "tcp", w.addr(kind))
		_, _ = io.WriteString(c, "EHLO\r\n\r\n")
		if b, err := io.ReadAll(c); !bytes.Contains(b, []byte("400 Bad Request")) || err != nil {
			t.Errorf("answer %q, %v", b, err)
		}
	}
	eventually(t, "no pending connection", func() bool {
		w.pending.mu.Lock()
		defer w.pending.mu.Unlock()
		return w.pending.total == 0
	})
}

// TestStreamLimit shows what callers get beyond the limit of streams.
func TestStreamLimit(t *testing.T) {
	w := run(t, plan(), func(c *Config) { c.Live = proxy.NewLive(proxy.Limits{Streams: 2, PerCaller: 1}) })
	hold := make(chan struct{})
	w.httpNode(proxy.Target{Node: "Edge1", Port: 9100}, nil, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hold }))
	t.Cleanup(sync.OnceFunc(func() { close(hold) }))
	first := dial(t, "tcp", w.addr(kindHTTP))
	_, _ = io.WriteString(first, "GET / HTTP/1.1\r\nHost: edge1:9100\r\n\r\n")
	eventually(t, "a stream", func() bool { return w.cfg.Live.Len() == 1 })
	got := talk(t, "tcp", w.addr(kindHTTP), "GET / HTTP/1.1\r\nHost: edge1:9100\r\n\r\n")
	if status, _, body := answerOf(t, got); status != 503 || !strings.Contains(body, "the limit of one caller") {
		t.Errorf("%d %q", status, body)
	}
	w.wantRefused(proxy.CodeLimit, 1)
}

// TestSlowReader has one caller that reads nothing beside 500 that go on.
func TestSlowReader(t *testing.T) {
	const streams, rounds = 500, 5
	w := run(t, plan(), nil)
	flood := listen(t, func(c net.Conn) {
		block := make([]byte, 64<<10)
		for {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	})
	echo := listen(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
	w.nodes.set(proxy.Target{Node: "Edge1", Port: 10250}, flood)
	w.nodes.set(proxy.Target{Node: "edge2", Port: 10250}, echo)

	stuck := dial(t, "tcp", w.addr(kindTLS))
	_, _ = stuck.Write(helloWith(sni("edge1")))
	down := func() uint64 { return w.cfg.Counters.Down.Load() }
	eventually(t, "flood", func() bool { return down() > 0 })

	hello := helloWith(sni("edge2"))
	conns := make([]net.Conn, streams)
	for i := range conns {
		conns[i] = dial(t, "tcp", w.addr(kindTLS))
		_, _ = conns[i].Write(hello)
	}
	var wg sync.WaitGroup
	errs := make(chan error, streams)
	for i, c := range conns {
		wg.Go(func() {
			if _, err := io.ReadFull(c, make([]byte, len(hello))); err != nil {
				errs <- fmt.Errorf("stream %d: hello: %w", i, err)
				return
			}
			for range rounds {
				if _, err := io.WriteString(c, "ping"); err != nil {
					errs <- err
					return
				}
				if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
					errs <- fmt.Errorf("stream %d: %w", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Fatal(err)
	}
	// What is taken of the flood is what sockets hold, and then no more.
	last := down()
	eventually(t, "end of what sockets take", func() bool { n := down(); done := n == last; last = n; return done })
	if l := w.cfg.Live.List(); len(l) != streams+1 || l[0].Down > 64<<20 {
		t.Errorf("%d streams, the stuck one took %d bytes", len(l), l[0].Down)
	}
	for _, c := range append(conns, stuck) {
		_ = c.Close()
	}
	eventually(t, "end of streams", func() bool { return w.cfg.Live.Len() == 0 })
}

// TestNothingIsLeft has many connections of all kinds, and then looks for what they
// left.
func TestNothingIsLeft(t *testing.T) {
	const each = 700
	w := run(t, plan(), nil)
	w.nodes.set(proxy.Target{Node: "Edge1", Port: 10250}, listen(t, func(c net.Conn) { _, _ = io.CopyN(io.Discard, c, 20) }))
	w.httpNode(proxy.Target{Node: "Edge1", Port: 9100}, nil, http.HandlerFunc(echoNode))
	files := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skip("no /proc")
		}
		return len(list)
	}
	say := []struct{ kind, what string }{
		{kindTLS, string(helloWith(sni("edge1")))},
		{kindTLS, string(helloWith(sni("nope")))},
		{kindTLS, "junk"},
		{kindHTTP, "GET /metrics HTTP/1.1\r\nHost: edge1:9100\r\n\r\n"},
		{kindHTTP, "GET /metrics HTTP/1.1\r\nHost: edge1:9445\r\n\r\n"},
	}
	addrs := map[string]string{kindTLS: w.addr(kindTLS), kindHTTP: w.addr(kindHTTP)}
	var fds, routines int
	for i := range each + 1 {
		for _, s := range say {
			c, err := net.Dial("tcp", addrs[s.kind])
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, s.what)
			if i%3 != 0 { // else it leaves at once
				_, _ = io.ReadAll(c)
			}
			_ = c.Close()
		}
		if i == 0 {
			eventually(t, "end of streams", func() bool { return w.cfg.Live.Len() == 0 })
			fds, routines = files()+10, runtime.NumGoroutine()+20
		}
	}
	eventually(t, "return to what there was", func() bool { return files() <= fds && runtime.NumGoroutine() <= routines })
	eventually(t, "end of what could be ended", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.cancels) == 0
	})
}
