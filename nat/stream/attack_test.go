package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"corax/dataplane/key"
)

// client does the TLS handshake with the hub as anybody can.
func (w *world) client() *tls.Conn {
	w.t.Helper()
	raw, err := w.pipe("203.0.113.66")
	if err != nil {
		w.t.Fatal(err)
	}
	c := tls.Client(raw, clientConfig("192.0.2.1:10280"))
	if err := c.Handshake(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = raw.Close() })
	return c
}

// wantSilence checks that the hub ends a connection without a byte.
func wantSilence(t *testing.T, c *tls.Conn) {
	t.Helper()
	if b, _ := io.ReadAll(c); len(b) != 0 {
		t.Errorf("the hub said %x", b)
	}
}

// TestStrangers: who has no key of a peer gets no answer.
func TestStrangers(t *testing.T) {
	own, stranger := newPrivate(t), newPrivate(t)
	for _, tt := range []struct {
		name   string
		proof  func(w *world, exporter []byte) []byte
		reason string
	}{
		{"an unknown key", func(w *world, e []byte) []byte {
			return proofOf(t, stranger, stranger.Public(), w.private.Public(), e, roleClient)
		}, "unknown_key"},
		{"the key of a peer, a MAC of another", func(w *world, e []byte) []byte {
			return proofOf(t, stranger, own.Public(), w.private.Public(), e, roleClient)
		}, "bad_mac"},
		{"the MAC of the other role", func(w *world, e []byte) []byte { return proofOf(t, own, own.Public(), w.private.Public(), e, roleHub) }, "bad_mac"},
		{"for another hub", func(w *world, e []byte) []byte {
			return proofOf(t, own, own.Public(), stranger.Public(), e, roleClient)
		}, "bad_mac"},
		{"for another session", func(w *world, _ []byte) []byte {
			return proofOf(t, own, own.Public(), w.private.Public(), make([]byte, exporterSize), roleClient)
		}, "bad_mac"},
		{"a key of low order", func(w *world, _ []byte) []byte {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.known[key.Public{1}] = true
			return append([]byte{1}, make([]byte, proofSize-1)...)
		}, "bad_mac"},
		{"the hub's own key", func(w *world, e []byte) []byte {
			return proofOf(t, stranger, w.private.Public(), w.private.Public(), e, roleClient)
		}, "unknown_key"},
		{"half a proof", func(w *world, e []byte) []byte {
			return proofOf(t, own, own.Public(), w.private.Public(), e, roleClient)[:proofSize-1]
		}, "timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, defaultLimits(), own)
				c := w.client()
				exporter, err := export(c)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := c.Write(tt.proof(w, exporter)); err != nil {
					t.Fatal(err)
				}
				wantSilence(t, c)
				w.want(tt.reason, 1)
				if len(w.events) != 0 {
					t.Errorf("events: %q", w.events)
				}
			})
		})
	}
}

func proofOf(t *testing.T, private key.Private, public, hub key.Public, exporter []byte, r role) []byte {
	t.Helper()
	m, err := mac(private, hub, exporter, r)
	if err != nil {
		t.Fatal(err)
	}
	return append(public[:], m[:]...)
}

// TestReplay: a proof that somebody has seen (the hub's TLS key was stolen, say)
// is worth nothing in another session, nor in the same one again.
func TestReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := newPrivate(t)
		w := newWorld(t, defaultLimits(), own)
		c := w.client()
		exporter, err := export(c)
		if err != nil {
			t.Fatal(err)
		}
		proof := proofOf(t, own, own.Public(), w.private.Public(), exporter, roleClient)
		if _, err := c.Write(proof); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, macSize)); err != nil {
			t.Fatalf("a good proof: %v", err)
		}
		again := w.client()
		if _, err := again.Write(proof); err != nil {
			t.Fatal(err)
		}
		wantSilence(t, again)
		w.want("bad_mac", 1)
		synctest.Wait()
		select {
		case <-w.conn.Done():
			t.Error("the replay ended the stream of the peer")
		default:
		}
	})
}

// TestManInTheMiddle: somebody ends TLS on both sides and copies what is inside,
// or answers by himself. The hub refuses, and so does the edge.
func TestManInTheMiddle(t *testing.T) {
	for _, tt := range []struct {
		name   string
		middle func(edge, hub *tls.Conn)
		want   error
		reason string
	}{
		{"copies", func(edge, hub *tls.Conn) {
			go func() { _, _ = io.Copy(hub, edge) }()
			_, _ = io.Copy(edge, hub)
		}, ErrRefused, "bad_mac"},
		{"sends the MAC back", func(edge, _ *tls.Conn) {
			proof := make([]byte, proofSize)
			_, _ = io.ReadFull(edge, proof)
			_, _ = edge.Write(proof[key.Size:])
		}, ErrImpostor, "bad_mac"},
		{"makes one up", func(edge, _ *tls.Conn) {
			_, _ = io.ReadFull(edge, make([]byte, proofSize))
			_, _ = edge.Write(make([]byte, macSize))
		}, ErrImpostor, "bad_mac"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				own := newPrivate(t)
				w := newWorld(t, defaultLimits(), own)
				near, far := net.Pipe()
				go func() {
					defer far.Close()
					cfg, err := serverConfig()
					if err != nil {
						t.Error(err)
						return
					}
					edge, hub := tls.Server(far, cfg), w.client()
					defer hub.NetConn().Close()
					if err := edge.Handshake(); err != nil {
						t.Error(err)
						return
					}
					tt.middle(edge, hub)
					if errors.Is(tt.want, ErrImpostor) { // and the hub gets a proof of another session
						_, _ = hub.Write(append(keyBytes(own), make([]byte, macSize)...))
						_, _ = io.ReadAll(hub)
					}
				}()
				cfg := w.config(own, ignore)
				cfg.Dial = func(context.Context, string, string) (net.Conn, error) { return near, nil }
				if _, err := Dial(t.Context(), cfg); !errors.Is(err, tt.want) {
					t.Errorf("the edge: %v, want %v", err, tt.want)
				}
				w.want(tt.reason, 1)
				if len(w.events) != 0 {
					t.Errorf("events at the hub: %q", w.events)
				}
			})
		})
	}
}

func keyBytes(k key.Private) []byte {
	public := k.Public()
	return public[:]
}

// TestSlowLoris: connections that say nothing, or dribble, are closed in time
// and keep nobody out.
func TestSlowLoris(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := newPrivate(t)
		l := defaultLimits()
		l.handshakes = 4
		w := newWorld(t, l, own)
		for range 10 {
			c, err := w.pipe("203.0.113.66")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		w.want("evicted", 6)
		w.edge(own, ignore)
		w.want("evicted", 7)
		if len(w.server.Streams()) != 1 {
			t.Error("the edge was kept out")
		}
		dribbler := w.client()
		for i := 0; ; i++ {
			time.Sleep(900 * time.Millisecond)
			if _, err := dribbler.Write([]byte{byte(i)}); err != nil {
				if i != 5 {
					t.Errorf("closed after %d bytes", i)
				}
				break
			}
		}
		w.want("timeout", 4) // the dribbler, and the three that were left
	})
}

func TestGarbage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, defaultLimits())
		c, err := w.pipe("203.0.113.66")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, c) }()
		_, _ = c.Write([]byte("GET / HTTP/1.1\r\nHost: hub\r\n\r\n"))
		w.want("handshake", 1)
		_ = c.Close()
	})
}
