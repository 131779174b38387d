package proxy_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"corax/proxy"
)

// restConn is a connection that says whether it holds anything.
type restConn struct {
	conn
	full atomic.Bool
}

func (c *restConn) Rest() bool {
	if c.full.Load() {
		return false
	}
	c.write = 4 << 10
	return true
}

// restful is a stream of a registry, with its two connections.
type restful struct {
	*proxy.Stream
	caller, node *restConn
	ctx          context.Context
}

func openRestful(t *testing.T, live *proxy.Live, info proxy.StreamInfo) (restful, error) {
	t.Helper()
	s, err := live.Open(info)
	if err != nil {
		return restful{}, err
	}
	r := restful{Stream: s, caller: new(restConn), node: new(restConn)}
	s.BindCaller(r.caller)
	s.BindNode(r.node)
	ctx, end := context.WithCancelCause(context.Background())
	t.Cleanup(func() { end(nil); s.Close() })
	s.EndIdle(end)
	r.ctx = ctx
	return r, nil
}

// TestManyStreamsAtRest: in the quarter of a container of 256 MiB two thousand streams
// may rest. When some of them stall beyond what there is, those are broken off, and
// told why; the others stay, and move.
func TestManyStreamsAtRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most, wanted = 64 << 20, 2000
		live := proxy.NewLive(proxy.Limits{Memory: most})
		var all []restful
		for len(all) < wanted {
			s, err := openRestful(t, live, proxy.StreamInfo{})
			if proxy.CodeOf(err) == proxy.CodeMemory {
				before := live.Memory()
				time.Sleep(1500 * time.Millisecond) // they come to rest
				if synctest.Wait(); live.Memory() >= before {
					t.Fatalf("%d streams are open, and none rests", len(all))
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, s)
			if live.Memory() > most {
				t.Fatalf("%d bytes are charged", live.Memory())
			}
		}
		time.Sleep(2 * time.Second)
		if got, want := live.Memory(), int64(wanted*32<<10); got != want {
			t.Errorf("%d KiB are charged for streams at rest, want %d", got>>10, want>>10)
		}
		for _, s := range all[:100] { // they wake, and their readers take nothing
			s.caller.full.Store(true)
			s.Passed(true, 1000)
		}
		over := live.Memory()
		if over <= most {
			t.Fatalf("%d bytes are charged: nobody has to yield", over)
		}
		if _, err := live.Open(proxy.StreamInfo{}); proxy.CodeOf(err) != proxy.CodeMemory {
			t.Errorf("one more stream: %v", err)
		}
		var counters proxy.Counters
		for range 4 { // who moves is let alone
			time.Sleep(200 * time.Millisecond)
			all[200].Passed(true, 10)
			all[0].Passed(true, 10)
		}
		synctest.Wait()
		for i, s := range all {
			cause := context.Cause(s.ctx)
			if e, ok := errors.AsType[*proxy.Ended](cause); ok && e.End == proxy.EndMemory && i < 100 {
				counters.Ended(cause)
				s.Close()
				continue
			}
			if cause != nil {
				t.Fatalf("stream %d ended: %v", i, cause)
			}
		}
		if context.Cause(all[0].ctx) != nil {
			t.Error("of those whose readers are slow the one that moved was broken off")
		}
		ended := counters.Snapshot().Ended[proxy.EndMemory]
		if live.Memory() > most || ended == 0 || ended >= 100 {
			t.Errorf("%d of 100 stalled streams ended, %d bytes are charged", ended, live.Memory())
		}
		time.Sleep(10 * time.Second)
		for _, s := range all[100:] {
			s.Passed(false, 10)
			if s.node.write < 8<<10 {
				t.Fatalf("a stream that woke writes with %d bytes", s.node.write)
			}
		}
		for _, s := range all {
			s.Close()
		}
		if live.Memory() != 0 || live.Len() != 0 {
			t.Errorf("%d bytes and %d streams are left", live.Memory(), live.Len())
		}
	})
}

// TestRest: what a stream is charged for, and how large its buffers are.
func TestRest(t *testing.T) {
	const large, rest = 480, 32 // KiB
	for _, tt := range []struct {
		name string
		info proxy.StreamInfo
		do   func(restful)
		wait time.Duration
		want int64 // KiB
	}{
		{"it just moved", proxy.StreamInfo{}, func(restful) {}, 900 * time.Millisecond, large},
		{"nothing is in it", proxy.StreamInfo{}, func(restful) {}, 1100 * time.Millisecond, rest},
		{"its HTTP is read here", proxy.StreamInfo{Path: "/"}, func(restful) {}, 2 * time.Second, 64},
		{"it moves now and then", proxy.StreamInfo{}, func(s restful) { time.Sleep(800 * time.Millisecond); s.Passed(true, 1) }, 900 * time.Millisecond, large},
		{"it moved again", proxy.StreamInfo{}, func(s restful) { time.Sleep(time.Minute); s.Passed(true, 1) }, 0, large},
		{"and rests again", proxy.StreamInfo{}, func(s restful) { time.Sleep(time.Minute); s.Passed(true, 1) }, 2 * time.Second, rest},
		{"its reader reads nothing", proxy.StreamInfo{}, func(s restful) { s.caller.full.Store(true) }, time.Hour, large},
		{"its reader reads later", proxy.StreamInfo{}, func(s restful) { s.caller.full.Store(true); time.Sleep(time.Minute); s.caller.full.Store(false) }, 5 * time.Second, rest},
		{"it copies with more", proxy.StreamInfo{}, func(s restful) { s.Take(64 << 10) }, 2 * time.Second, rest + 64},
		{"it has grown", proxy.StreamInfo{}, func(s restful) { s.Passed(true, 1<<20) }, 2 * time.Second, rest},
		{"it has grown, and woke", proxy.StreamInfo{}, func(s restful) {
			s.Passed(true, 1<<20)
			time.Sleep(time.Minute)
			s.Passed(true, 1)
		}, 0, large + 256}, // the buffer to write into was given back
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				live := proxy.NewLive(proxy.Limits{Memory: 64 << 20})
				s, err := openRestful(t, live, tt.info)
				if err != nil {
					t.Fatal(err)
				}
				tt.do(s)
				time.Sleep(tt.wait)
				synctest.Wait()
				if got := live.Memory() >> 10; got != tt.want {
					t.Errorf("%d KiB are charged, want %d", got, tt.want)
				}
				s.Close()
				if live.Memory() != 0 {
					t.Errorf("%d bytes are left", live.Memory())
				}
			})
		})
	}
}
