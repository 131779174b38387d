package proxy_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"corax/proxy"
)

func TestCodes(t *testing.T) {
	seen := map[string]proxy.Code{}
	for _, c := range proxy.Codes() {
		if other, twice := seen[c.String()]; twice || c.String() == "other" || c.HTTPStatus() < 400 || http.StatusText(c.HTTPStatus()) == "" {
			t.Errorf("code %d is %q with status %d, as is %d", c, c, c.HTTPStatus(), other)
		}
		seen[c.String()] = c
	}
	if len(seen) != 14 {
		t.Errorf("%d codes; is codeBound above all of them?", len(seen))
	}
	if c := proxy.Code(200); c.String() != "other" || c.HTTPStatus() != http.StatusBadGateway || c.Known() {
		t.Errorf("an unknown code is %q with status %d", c, c.HTTPStatus())
	}
	cause := errors.New("cause")
	err := fmt.Errorf("front: %w", &proxy.Refusal{Code: proxy.CodePort, Text: "no", Err: cause})
	var none *proxy.Refusal
	if proxy.CodeOf(err) != proxy.CodePort || !errors.Is(err, cause) ||
		proxy.CodeOf(nil) != proxy.CodeNone || proxy.CodeOf(none) != proxy.CodeNone || proxy.CodeOf(cause) != proxy.CodeNoPath {
		t.Error("CodeOf does not find the code")
	}
}

func TestLiveLimits(t *testing.T) {
	live := proxy.NewLive(proxy.Limits{Streams: 3, PerCaller: 2})
	from := func(last byte) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, last}), 1000)
	}
	open := func(last byte) *proxy.Stream {
		s, err := live.Open(proxy.StreamInfo{Caller: from(last)})
		if err != nil && proxy.CodeOf(err) != proxy.CodeLimit {
			t.Fatal(err)
		}
		return s
	}
	a, b := open(1), open(1)
	if open(1) != nil {
		t.Error("a third stream of one caller")
	}
	c := open(2)
	if open(3) != nil {
		t.Error("a fourth stream")
	}
	a.Close()
	a.Close()
	if live.Len() != 2 {
		t.Errorf("%d streams after one was closed twice", live.Len())
	}
	d := open(1)
	if d == nil || open(4) != nil {
		t.Error("what was closed does not make room for one")
	}
	b.Up.Add(7)
	b.Update(func(i *proxy.StreamInfo) {
		i.Target, i.ID, i.Caller = proxy.Target{Node: "n", Port: 1}, 99, netip.AddrPort{}
	})
	var got []string
	for _, i := range live.List() {
		if i.Started.IsZero() {
			t.Error("no start")
		}
		got = append(got, fmt.Sprint(i.ID, i.Caller.Addr(), i.Target, i.Up))
	}
	if diff := cmp.Diff([]string{"2 10.0.0.1 n:1 7", "3 10.0.0.2 :0 0", "4 10.0.0.1 :0 0"}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for _, s := range []*proxy.Stream{b, c, d} {
		s.Close()
	}
	if live.Len() != 0 {
		t.Errorf("%d streams left", live.Len())
	}
}

func TestCountersTogether(t *testing.T) {
	var c proxy.Counters
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				c.Request("tls")
				c.Refused(proxy.CodePort)
				c.Refused(proxy.CodeNone)
				c.Refused(99)
				c.Took(proxy.StagePath, time.Millisecond)
				_ = c.Snapshot()
			}
		})
	}
	wg.Wait()
	s := c.Snapshot()
	if s.Requests["tls"] != 800 || s.Refused[proxy.CodePort] != 800 || s.Refused[proxy.CodeMalformed] != 800 ||
		s.Stages[proxy.StagePath] != (proxy.Latency{Count: 800, Sum: 800 * time.Millisecond}) {
		t.Errorf("counted %+v", s)
	}
	if _, ok := s.Stages[proxy.StageAuth]; !ok || len(s.Refused) != len(proxy.Codes()) {
		t.Error("what never happened is missing")
	}
}

func TestCheckAddr(t *testing.T) {
	for _, tt := range []struct {
		addr string
		ok   bool
	}{
		{"192.168.1.1", true},
		{"10.0.0.1", true},
		{"100.64.0.7", true},
		{"203.0.113.1", true},
		{"2001:db8::1", true},
		{"fd00::1", true},
		{"::ffff:10.0.0.1", true},
		{"127.0.0.1", false},
		{"127.8.8.8", false},
		{"::1", false},
		{"::ffff:127.0.0.1", false},
		{"0.0.0.0", false},
		{"::", false},
		{"224.0.0.1", false},
		{"ff02::1", false},
		{"255.255.255.255", false},
		{"169.254.169.254", false},
		{"fe80::1", false},
		{"fe80::1%eth0", false},
		{"100.100.100.200", false},
		{"168.63.129.16", false},
		{"fd00:ec2::254", false},
		{"fd63:6f72:6178::1", false},
	} {
		if err := proxy.CheckAddr(netip.MustParseAddr(tt.addr)); (err == nil) != tt.ok {
			t.Errorf("CheckAddr(%s) = %v", tt.addr, err)
		}
	}
	if proxy.CheckAddr(netip.Addr{}) == nil {
		t.Error("no address passes")
	}
}

// conn notes the buffers that it is given.
type conn struct {
	net.Conn
	read, write int
}

func (c *conn) SetReadBuffer(n int) error  { c.read = n; return nil }
func (c *conn) SetWriteBuffer(n int) error { c.write = n; return nil }

func TestLiveMemory(t *testing.T) {
	const most = 64 << 20
	live := proxy.NewLive(proxy.Limits{Memory: most, Streams: 10000})
	var all []*proxy.Stream
	reads := map[int]int{}
	for {
		s, err := live.Open(proxy.StreamInfo{})
		if err != nil {
			if proxy.CodeOf(err) != proxy.CodeMemory {
				t.Fatal(err)
			}
			break
		}
		all = append(all, s)
		var c conn
		s.BindNode(&c)
		reads[c.read>>10]++
		if live.Memory() > most {
			t.Fatalf("%d bytes are charged", live.Memory())
		}
	}
	// An eighth at the largest size, an eighth at the next, and so on.
	if diff := cmp.Diff(map[int]int{256: 17, 128: 32, 64: 114, 48: 315}, reads); diff != "" {
		t.Errorf("receive buffers in KiB, -want +got:\n%s", diff)
	}
	if all[0].Take(1) {
		t.Error("something is lent of what is for new streams")
	}
	for _, s := range all {
		s.Close()
		s.Close()
		s.Give(1)
	}
	if live.Memory() != 0 {
		t.Errorf("%d bytes are left", live.Memory())
	}
}

func TestBuffersGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		live := proxy.NewLive(proxy.Limits{Memory: 64 << 20})
		s, err := live.Open(proxy.StreamInfo{})
		if err != nil {
			t.Fatal(err)
		}
		var caller, node conn
		s.BindCaller(&caller)
		s.BindNode(&node)
		opened := live.Memory()
		for i, c := range []struct {
			after       time.Duration
			passed      int // KiB
			read, write int // KiB
		}{
			{0, 1000, 256, 64},
			{0, 24, 512, 512},                 // four times the buffer
			{6 * time.Second, 2048, 512, 512}, // too slowly
			{4 * time.Second, 2047, 512, 512},
			{0, 1, 1024, 1024},
			{0, 4096, 2048, 2048},
			{0, 100 << 10, 2048, 2048}, // too much of what there is
		} {
			time.Sleep(c.after)
			s.Passed(true, c.passed<<10)
			if node.read != c.read<<10 || caller.write != c.write<<10 {
				t.Errorf("step %d: buffers of %d and %d KiB", i, node.read>>10, caller.write>>10)
			}
		}
		if node.write != 64<<10 || caller.read != 256<<10 {
			t.Error("the other direction grew, too")
		}
		if more := live.Memory() - opened; more != int64(2*2048-256-64)<<10 {
			t.Errorf("%d KiB are charged for that", more>>10)
		}
		s.Close()
		if live.Memory() != 0 {
			t.Errorf("%d bytes are left", live.Memory())
		}
	})
}

func TestSource(t *testing.T) {
	for _, tt := range []struct{ addr, want string }{
		{"192.168.1.1", "192.168.1.1"},
		{"::ffff:192.168.1.1", "192.168.1.1"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"},
		{"fe80::1%eth0", "fe80::"},
		{"fd63:6f72:6178::1", "fd63:6f72:6178::1"},
	} {
		if got := proxy.Source(netip.MustParseAddr(tt.addr)); got != netip.MustParseAddr(tt.want) {
			t.Errorf("%s counts as %s, want %s", tt.addr, got, tt.want)
		}
	}
	if proxy.Source(netip.Addr{}).IsValid() {
		t.Error("no address counts as one")
	}
	live := proxy.NewLive(proxy.Limits{Streams: 10, PerCaller: 2})
	var got []bool
	for _, a := range []string{"2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"} {
		_, err := live.Open(proxy.StreamInfo{Caller: netip.AddrPortFrom(netip.MustParseAddr(a), 1)})
		got = append(got, err == nil)
	}
	if diff := cmp.Diff([]bool{true, true, false, true}, got); diff != "" {
		t.Errorf("streams of a /64, -want +got:\n%s", diff)
	}
}
