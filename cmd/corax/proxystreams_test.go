package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"corax/proxy"
)

func TestStreamsTable(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := ProxyStreams{Node: "hub", Streams: []ProxyStream{
		streamOf(proxy.StreamInfo{
			ID: 1, Side: proxy.SideFront, Front: "http", Target: proxy.Target{Node: "edge-1", Port: 9100},
			Caller: netip.MustParseAddrPort("10.0.0.9:4000"), User: "system:serviceaccount:monitoring:prometheus", Path: "/metrics\x1b[2J",
			Via: "fd63::1", Started: now.Add(-90 * time.Second), Up: 2048, Down: 5 << 20,
		}),
		streamOf(proxy.StreamInfo{ID: 2, Side: proxy.SideEdge, Target: proxy.Target{Node: "edge-2", Port: 10250}, Caller: netip.MustParseAddrPort("[fd63::2]:1"), Started: now}),
	}}
	got := streamsTable(s, now)
	for _, want := range []string{"edge-1:9100", "http", "10.0.0.9:4000", "prometheus", "fd63::1", "1m30s", "2.00 KiB", "5.00 MiB", "/metrics", "edge-2:10250", "edge ", "[fd63::2]:1"} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks %q:\n%s", want, got)
		}
	}
	if strings.ContainsRune(got, '\x1b') {
		t.Errorf("a caller writes to the terminal:\n%q", got)
	}
	if got := streamsTable(ProxyStreams{Node: "hub"}, now); got != "no streams are open on hub\n" {
		t.Errorf("%q", got)
	}
}

// TestStreamsOverSocket asks a living API, and one that has none.
func TestStreamsOverSocket(t *testing.T) {
	f := &fakeAgent{}
	socket, _ := startLocal(t, f)
	if code, _, stderr := corax(t, "proxy", "--socket", socket); code != exitFailed || !strings.Contains(stderr, "not available") {
		t.Errorf("%d %s", code, stderr)
	}
	f = &fakeAgent{streams: func() ProxyStreams { return ProxyStreams{Node: "hub"} }}
	socket, _ = startLocal(t, f)
	code, stdout, stderr := corax(t, "proxy", "-o", "json", "--socket", socket)
	if code != exitOK || !strings.Contains(stdout, `"streams": []`) {
		t.Errorf("%d %s %s", code, stdout, stderr)
	}
	code, stdout, stderr = corax(t, "doctor", "-o", "json", "--socket", socket)
	if code != exitOK || !strings.Contains(stdout, `"step": "agent"`) {
		t.Errorf("%d %s %s", code, stdout, stderr)
	}
	if code, _, _ := corax(t, "doctor", "--port", "0", "--socket", socket); code != exitUsage {
		t.Errorf("a bad port: exit code %d", code)
	}
}
