package front

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"corax/proxy"
)

// TestEndSilent: a caller that leaves it at its ClientHello is broken off, one that
// goes on with the handshake may be as quiet as it likes, and a node that has not
// answered yet is waited for.
func TestEndSilent(t *testing.T) {
	for _, c := range []struct {
		name     string
		answered bool
		more     uint64
		ended    bool
	}{
		{"only a ClientHello", true, 0, true},
		{"the handshake goes on", true, 1, false},
		{"the node is slow", false, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				live, err := proxy.NewLive(proxy.Limits{}).Open(proxy.StreamInfo{})
				if err != nil {
					t.Fatal(err)
				}
				defer live.Close()
				s := &stream{front: &Front{cfg: Config{Counters: new(proxy.Counters)}}, live: live, dialled: time.Now()}
				var ended atomic.Bool
				s.endSilent(200, func() { ended.Store(true) })
				live.Up.Store(200 + c.more)
				if c.answered {
					s.answered()
					s.answered()
				}
				time.Sleep(helloAlone - 1)
				synctest.Wait()
				if ended.Load() {
					t.Error("ended too early")
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				if got := ended.Load(); got != c.ended {
					t.Errorf("ended %t, want %t", got, c.ended)
				}
			})
		})
	}
}
