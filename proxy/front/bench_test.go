package front

import (
	"context"
	"io"
	"net"
	"runtime"
	"testing"

	"corax/proxy"
)

// silentNode is a dialer whose nodes say what they get, and no more.
type silentNode struct{ addr string }

func (s silentNode) Dial(ctx context.Context, _ proxy.Target) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", s.addr)
}

func benchFront(b *testing.B) (live *proxy.Live, addr string, done func()) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, make([]byte, 512))
			}()
		}
	}()
	f, err := New(Config{
		Dialer: silentNode{ln.Addr().String()}, Counters: new(proxy.Counters),
		Live: proxy.NewLive(proxy.Limits{Streams: 1 << 20}),
	})
	if err != nil {
		b.Fatal(err)
	}
	f.Apply(plan())
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	for len(f.Listeners()) == 0 {
		runtime.Gosched()
	}
	return f.cfg.Live, f.Listeners()[0].Addr, func() { cancel(); <-ended; _ = ln.Close() }
}

// BenchmarkIdleStreams shows the memory of a stream at rest: both ends and the
// sockets' Go side included, which are the test's.
func BenchmarkIdleStreams(b *testing.B) {
	live, addr, done := benchFront(b)
	defer done()
	hello := helloWith(sni("edge1"))
	const n = 500
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		conns := make([]net.Conn, n)
		for i := range conns {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				b.Fatal(err)
			}
			conns[i] = c
			_, _ = c.Write(hello)
			if _, err := io.ReadFull(c, make([]byte, len(hello))); err != nil {
				b.Fatal(err)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		used := int64(after.HeapInuse+after.StackInuse) - int64(before.HeapInuse+before.StackInuse)
		b.ReportMetric(float64(used)/n, "B/stream")
		for _, c := range conns {
			_ = c.Close()
		}
		for live.Len() > 0 {
			runtime.Gosched()
		}
	}
}

// BenchmarkConnections shows what a connection costs that says a few bytes.
func BenchmarkConnections(b *testing.B) {
	_, addr, done := benchFront(b)
	defer done()
	hello := helloWith(sni("edge1"))
	for b.Loop() {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = c.Write(hello)
		if _, err := io.ReadFull(c, make([]byte, len(hello))); err != nil {
			b.Fatal(err)
		}
		_ = c.Close()
	}
}
