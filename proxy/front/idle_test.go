package front

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"corax/proxy"
)

// pipeDialer has nodes in memory that answer as they are told.
type pipeDialer func(net.Conn)

func (p pipeDialer) Dial(context.Context, proxy.Target) (net.Conn, error) {
	here, there := net.Pipe()
	go p(there)
	return here, nil
}

// TestIdle shows that a request ends on which nothing moves, where HTTP is read here.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(syncBuffer)
		f, err := New(Config{
			Log: slog.New(slog.NewTextHandler(log, nil)), Live: proxy.NewLive(proxy.Limits{Idle: time.Hour}), Counters: new(proxy.Counters),
			Dialer: pipeDialer(func(c net.Conn) {
				defer c.Close()
				_, _ = c.Read(make([]byte, 4<<10))
				_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"))
				time.Sleep(59 * time.Minute)
				_, _ = c.Write([]byte("x"))
				_, _ = c.Read(make([]byte, 1))
			}),
		})
		if err != nil {
			t.Fatal(err)
		}
		p := plan()
		p.TLS, p.HTTP = nil, nil
		f.Apply(p)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- f.Run(ctx) }()
		here, there := net.Pipe()
		began := time.Now()
		go f.serve(ctx, &arrival{Conn: there, kind: kindHTTP, from: netip.MustParseAddrPort("10.0.0.9:1"), began: began, leave: func() {}})
		go func() { _, _ = here.Write([]byte("GET /x HTTP/1.1\r\nHost: edge1:9100\r\n\r\n")) }()
		buf := make([]byte, 4<<10)
		for {
			if _, err := here.Read(buf); err != nil {
				break
			}
		}
		if d := time.Since(began); d != 119*time.Minute {
			t.Errorf("it ended after %v", d)
		}
		synctest.Wait()
		if n := f.cfg.Counters.Snapshot().Ended[proxy.EndIdle]; n != 1 || !strings.Contains(log.String(), "nothing moved for 1h0m0s") {
			t.Errorf("counted %d, log %s", n, log)
		}
		cancel()
		<-ended
	})
}
