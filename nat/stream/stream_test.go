package stream

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"corax/dataplane/key"
)

func noProxy(*url.URL) (*url.URL, error) { return nil, nil }

func ignore(*Conn, [][]byte) {}

func TestExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := newPrivate(t)
		w := newWorld(t, defaultLimits(), own)
		w.reply = true
		var back [][]byte
		c, done := w.edge(own, func(_ *Conn, list [][]byte) {
			for _, d := range list {
				back = append(back, bytes.Clone(d))
			}
		})
		time.Sleep(time.Second)
		var sent [][]byte
		for _, size := range []int{1, 2, 1452, MaxDatagram, 3, MaxDatagram, 17} {
			sent = append(sent, bytes.Repeat([]byte{byte(size)}, size))
		}
		if n := c.Send(append(slices.Clone(sent), nil, make([]byte, MaxDatagram+1))); n != len(sent) {
			t.Errorf("Send took %d of %d", n, len(sent))
		}
		synctest.Wait()
		if diff := cmp.Diff(sent, w.got); diff != "" {
			t.Errorf("at the hub: %s", diff)
		}
		if diff := cmp.Diff(sent, back); diff != "" {
			t.Errorf("back at the edge: %s", diff)
		}
		st := c.Status()
		if st.Peer != w.private.Public() || st.TxPackets != 7 || st.RxPackets != 7 || st.TxBytes != st.RxBytes || st.Dropped != 2 || st.Queued != 0 || st.LastReceive.IsZero() {
			t.Errorf("status: %+v", st)
		}
		if list := w.server.Streams(); len(list) != 1 || list[0].Peer != own.Public() || list[0].Remote.Addr().String() != "198.51.100.7" {
			t.Errorf("streams: %+v", list)
		}
		w.conn.Close()
		if err := <-done; err == nil || !strings.Contains(err.Error(), "the peer closed the stream") {
			t.Errorf("Run: %v", err)
		}
		if c.Send(sent) != 0 {
			t.Error("Send on a stream that has ended")
		}
		synctest.Wait()
		if diff := cmp.Diff([]string{"opened", "closed"}, w.events); diff != "" {
			t.Error(diff)
		}
	})
}

// TestRunEnds has what is no error: a cancelled context, and Close.
func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := newPrivate(t)
		w := newWorld(t, defaultLimits(), own)
		c, done := w.edge(own, ignore)
		c.Close()
		if err := <-done; err != nil {
			t.Errorf("after Close: %v", err)
		}
		c, err := Dial(t.Context(), w.config(own, ignore))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.Run(ctx); err != nil {
			t.Errorf("with a cancelled context: %v", err)
		}
	})
}

// TestReplaced: a second stream of a peer takes the place of the first, and takes
// no room of others. An agent whose address has changed comes back this way.
func TestReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := newPrivate(t), newPrivate(t), newPrivate(t)
		w := newWorld(t, defaultLimits(), a, b, c) // room for two
		_, first := w.edge(a, ignore)
		w.edge(b, ignore)
		second, _ := w.edge(a, ignore)
		if err := <-first; err == nil {
			t.Error("the first stream lives")
		}
		second.Send([][]byte{{1}})
		synctest.Wait()
		if len(w.got) != 1 || len(w.server.Streams()) != 2 {
			t.Errorf("%d datagrams, %d streams", len(w.got), len(w.server.Streams()))
		}
		if n := w.count("nat_stream_ended_total", "replaced"); n != 1 {
			t.Errorf("%d replaced", n)
		}
		third, err := Dial(t.Context(), w.config(c, ignore))
		if err == nil { // the hub's proof came before its farewell
			err = third.Run(t.Context())
		}
		if err == nil {
			t.Error("a third peer got a stream where two are allowed")
		}
		w.want("full", 1)
	})
}

func TestRecheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPrivate(t), newPrivate(t)
		w := newWorld(t, defaultLimits(), a, b)
		_, gone := w.edge(a, ignore)
		w.edge(b, ignore)
		w.mu.Lock()
		delete(w.known, a.Public())
		w.mu.Unlock()
		w.server.Recheck()
		if err := <-gone; err == nil {
			t.Error("the stream of a removed peer lives")
		}
		synctest.Wait()
		if list := w.server.Streams(); len(list) != 1 || list[0].Peer != b.Public() {
			t.Errorf("streams: %+v", list)
		}
	})
}

// TestAllowed: an address outside the allow list is not let in, and one that the
// list loses is cut.
func TestAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPrivate(t), newPrivate(t)
		w := newWorld(t, defaultLimits(), a, b)
		_, gone := w.edge(a, ignore)
		shut := func(addr string, out bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.outside[netip.MustParseAddr(addr)] = out
		}
		w.server.Recheck()
		synctest.Wait()
		if n := len(w.server.Streams()); n != 1 {
			t.Fatalf("%d streams", n)
		}
		shut("198.51.100.7", true)
		w.server.Recheck()
		if err := <-gone; err == nil {
			t.Error("the stream of an address outside the list lives")
		}
		if n := w.count("nat_stream_ended_total", "source_not_allowed"); n != 1 {
			t.Errorf("%d counted", n)
		}
		if _, err := Dial(t.Context(), w.config(b, ignore)); err == nil {
			t.Error("an address outside the list has a stream")
		}
		w.want("source_not_allowed", 1)
		w.want("handshake", 0) // nothing was read
		shut("198.51.100.7", false)
		w.edge(b, ignore)
	})
}

// TestSlowReader: a peer that reads nothing costs a bounded queue, loses the
// oldest, and its stream ends.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := newPrivate(t)
		w := newWorld(t, defaultLimits(), own)
		c, err := Dial(t.Context(), w.config(own, ignore)) // nobody runs it
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		synctest.Wait()
		began := time.Now()
		for i := range 1000 {
			w.conn.Send([][]byte{bytes.Repeat([]byte{byte(i)}, 1400)})
		}
		if time.Since(began) != 0 {
			t.Error("Send waited")
		}
		synctest.Wait()
		st := w.conn.Status()
		if st.Queued != maxQueued || st.Dropped+st.TxPackets+maxQueued != 1000 || st.TxPackets > 2*maxRecord/1400 {
			t.Errorf("%+v", st)
		}
		<-w.conn.Done()
		if took := time.Since(began); took != writeTimeout {
			t.Errorf("ended after %v", took)
		}
	})
}

// TestOld: what waited too long for a slow network is not sent any more.
func TestOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := newPrivate(t)
		w := newWorld(t, defaultLimits(), own)
		c, err := Dial(t.Context(), w.config(own, ignore))
		if err != nil {
			t.Fatal(err)
		}
		var got [][]byte
		c.receive = func(_ *Conn, list [][]byte) {
			for _, d := range list {
				got = append(got, bytes.Clone(d))
			}
		}
		synctest.Wait()
		for i := range 3 {
			w.conn.Send([][]byte{{byte(i)}}) // the first is written at once, and waits for a reader
			synctest.Wait()
			time.Sleep(200 * time.Millisecond)
		}
		done := make(chan error)
		go func() { done <- c.Run(t.Context()) }()
		synctest.Wait()
		if diff := cmp.Diff([][]byte{{0}, {2}}, got); diff != "" {
			t.Error(diff)
		}
		if n := w.count("nat_stream_drop_total", "too_old"); n != 1 {
			t.Errorf("%d too old", n)
		}
		c.Close()
		<-done
	})
}

// TestFrames: what is no frame ends the stream of who sent it, after what came
// before; a frame without a datagram means nothing.
func TestFrames(t *testing.T) {
	for _, tt := range []struct {
		name string
		send []byte
		bad  uint64
		ends bool
	}{
		{"empty frames", []byte{0, 0, 0, 0, 0, 1, 7}, 0, false},
		{"longer than any datagram", []byte{0, 1, 7, 0x3f, 0xff, 1}, 1, true},
		{"garbage", []byte("\x00\x01\x07GET / HTTP/1.1\r\n"), 1, true},
		{"cut", []byte{0, 1, 7, 0, 9, 1, 2}, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				own := newPrivate(t)
				w := newWorld(t, defaultLimits(), own)
				c, _ := w.edge(own, ignore)
				if _, err := c.tls.Write(tt.send); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if diff := cmp.Diff([][]byte{{7}}, w.got); diff != "" {
					t.Error(diff)
				}
				if n := w.count("nat_stream_ended_total", "bad_frame"); n != tt.bad {
					t.Errorf("%d bad frames", n)
				}
				select {
				case <-w.conn.Done():
					if !tt.ends {
						t.Error("ended")
					}
				default:
					if tt.ends {
						t.Error("lives")
					}
				}
				c.Close()
				synctest.Wait()
				if len(w.got) != 1 || len(w.server.Streams()) != 0 {
					t.Errorf("at the end: %d datagrams, %d streams", len(w.got), len(w.server.Streams()))
				}
			})
		})
	}
}

func TestDialFails(t *testing.T) {
	refused := errors.New("nobody there")
	for _, tt := range []struct {
		name string
		set  func(*DialConfig)
		want string
	}{
		{"no key", func(c *DialConfig) { c.Private = key.Private{} }, "no private key"},
		{"no hub", func(c *DialConfig) { c.Hub = key.Public{} }, "no private key, or no key of the hub"},
		{"no receiver", func(c *DialConfig) { c.Receive = nil }, "no Receive"},
		{"no connection", func(c *DialConfig) {
			c.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, refused }
		}, "dial 192.0.2.1:10280: nobody there"},
		{"a proxy that is none", func(c *DialConfig) {
			c.Proxy = func(*url.URL) (*url.URL, error) { return nil, errors.New("http://u:secret@x y") }
		}, "the proxy in the environment is no URL"},
		{"another type of proxy", func(c *DialConfig) { c.Proxy = proxyIs("socks5://u:secret@p:1") }, `type "socks5" is not supported`},
		{"a hub key of low order", func(c *DialConfig) { c.Hub = key.Public{1} }, "shared secret"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				own := newPrivate(t)
				w := newWorld(t, defaultLimits(), own)
				cfg := w.config(own, ignore)
				tt.set(&cfg)
				_, err := Dial(t.Context(), cfg)
				if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret@") {
					t.Errorf("%v, want %q", err, tt.want)
				}
			})
		})
	}
}

// TestDialCancelled: an attempt ends with its context, whatever it waits for.
func TestDialCancelled(t *testing.T) {
	for _, stage := range []string{"tls", "proof"} {
		synctest.Test(t, func(t *testing.T) {
			own := newPrivate(t)
			near, far := net.Pipe()
			defer far.Close()
			if stage == "proof" {
				go mute(t, far)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			began := time.Now()
			_, err := Dial(ctx, DialConfig{
				Private: own, Hub: newPrivate(t).Public(), Addr: "192.0.2.1:1", Proxy: noProxy, Receive: ignore,
				Dial: func(context.Context, string, string) (net.Conn, error) { return near, nil },
			})
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
				t.Errorf("%s: %v after %v", stage, err, time.Since(began))
			}
		})
	}
}

// TestDialTimeout: a hub that says nothing is left after five seconds, and is not
// said to have refused us.
func TestDialTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		go mute(t, far)
		began := time.Now()
		_, err := Dial(t.Context(), DialConfig{
			Private: newPrivate(t), Hub: newPrivate(t).Public(), Addr: "192.0.2.1:1", Proxy: noProxy, Receive: ignore,
			Dial: func(context.Context, string, string) (net.Conn, error) { return near, nil },
		})
		if err == nil || errors.Is(err, ErrRefused) || time.Since(began) != proofTimeout {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// mute does the TLS handshake, reads the proof, and says nothing.
func mute(t *testing.T, far net.Conn) {
	cfg, err := serverConfig()
	if err != nil {
		t.Error(err)
		return
	}
	c := tls.Server(far, cfg)
	for {
		if _, err := c.Read(make([]byte, 100)); err != nil {
			return
		}
	}
}
