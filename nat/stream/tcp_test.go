package stream

import (
	"context"
	"strings"
	"testing"
	"time"

	"corax/dataplane/key"
)

// BenchmarkStream moves datagrams over a loopback connection and back.
func BenchmarkStream(b *testing.B) {
	own := newPrivate(b)
	addr, public, _ := startHub(b, own.Public())
	back := make(chan int, 1<<16)
	c, err := Dial(b.Context(), DialConfig{
		Private: own, Hub: public, Addr: addr, Proxy: noProxy,
		Receive: func(_ *Conn, list [][]byte) { back <- len(list) },
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	batch := make([][]byte, 16)
	for i := range batch {
		batch[i] = make([]byte, 1400)
	}
	b.SetBytes(int64(len(batch) * 1400))
	b.ReportAllocs()
	for b.Loop() {
		c.Send(batch)
		for n := 0; n < len(batch); {
			n += <-back
		}
	}
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
}

// TestListenerFails: a listener that somebody else closes is an error of Run.
func TestListenerFails(t *testing.T) {
	l := listen(t)
	s, err := New(Config{Private: newPrivate(t), Listener: l, Known: new(world).isKnown, Receive: ignore})
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := s.Run(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "stream: accept: ") {
		t.Errorf("%v", err)
	}
}

// TestLifecycle runs and stops a hub with a live stream on real sockets.
func TestLifecycle(t *testing.T) {
	own := newPrivate(t)
	addr, public, s := startHub(t, own.Public())
	got := make(chan []byte, 1)
	c, err := Dial(t.Context(), DialConfig{Private: own, Hub: public, Addr: addr, Proxy: noProxy, Receive: keep(got)})
	if err != nil {
		t.Fatal(err)
	}
	echo(t, c, got)
	if st := c.Status(); st.Remote.String() != addr || st.TxPackets != 1 || st.RxPackets != 1 {
		t.Errorf("%+v", st)
	}
	if n := value(t, s.Counters(), "nat_stream_accepted_total", ""); n != 1 {
		t.Errorf("%d accepted", n)
	}
	// Idle streams hold no queue memory.
	c, err = Dial(t.Context(), DialConfig{Private: own, Hub: public, Addr: addr, Proxy: noProxy, Receive: keep(got)})
	if err != nil {
		t.Fatal(err)
	}
	c.Send([][]byte{{1}})
	done := make(chan error)
	go func() { done <- c.Run(t.Context()) }()
	select {
	case <-got:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came back")
	}
	c.mu.Lock()
	idle := c.queue.store == nil || c.queue.count > 0
	c.mu.Unlock()
	if !idle && c.next() != nil {
		t.Error("an idle stream has something to send")
	}
	c.Close()
	<-done
}

func TestConfig(t *testing.T) {
	l := listen(t)
	defer l.Close()
	good := Config{Private: newPrivate(t), Listener: l, Known: new(world).isKnown, Receive: ignore}
	for name, spoil := range map[string]func(*Config){
		"private": func(c *Config) { c.Private = key.Private{} }, "listener": func(c *Config) { c.Listener = nil },
		"known": func(c *Config) { c.Known = nil }, "receive": func(c *Config) { c.Receive = nil }, "max": func(c *Config) { c.MaxStreams = -1 },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
