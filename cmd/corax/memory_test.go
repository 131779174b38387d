package main

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"corax/dataplane"
	"corax/dataplane/key"
)

func TestMemory(t *testing.T) {
	dir := t.TempDir()
	if m, err := loadMemory(dir); err != nil || !m.Clock.IsZero() || len(m.Proven) != 0 {
		t.Fatalf("loadMemory of an empty directory = %v, %v", m, err)
	}
	want := memory{
		Clock:  time.Date(2026, 11, 20, 1, 2, 3, 0, time.UTC),
		Proven: map[key.Public]netip.AddrPort{{1}: netip.MustParseAddrPort("203.0.113.9:4500"), {2}: netip.MustParseAddrPort("[2001:db8::1]:1")},
	}
	if err := want.save(dir); err != nil {
		t.Fatal(err)
	}
	got, err := loadMemory(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Clock, got.Clock); diff != "" {
		t.Error(diff)
	}
	if len(got.Proven) != 2 || got.Proven[key.Public{1}] != want.Proven[key.Public{1}] || got.Proven[key.Public{2}] != want.Proven[key.Public{2}] {
		t.Errorf("Proven = %v, want %v", got.Proven, want.Proven)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.*.*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestMemoryDamaged(t *testing.T) {
	for name, content := range map[string]string{
		"empty":     "",
		"cut":       `{"clock":"2026-`,
		"wrong key": `{"proven":{"x":"1.2.3.4:5"}}`,
		"huge":      string(make([]byte, maxMemory+1)),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, memoryFile), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if m, err := loadMemory(dir); err == nil || len(m.Proven) != 0 {
				t.Errorf("loadMemory = %v, %v; want nothing and an error", m, err)
			}
		})
	}
}

func TestMemorySaveKeepsOldFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	if err := (memory{}).save(dir); err == nil {
		t.Error("save into a missing directory: no error")
	}
}

func TestClockBehind(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name  string
		clock time.Time
		want  time.Duration
	}{
		{"never saved", time.Time{}, 0},
		{"earlier", now.Add(-time.Hour), 0},
		{"later", now.Add(time.Hour), time.Hour},
	} {
		if got := (memory{Clock: tc.clock}).clockBehind(now); got != tc.want {
			t.Errorf("%s: clockBehind = %v, want %v", tc.name, got, tc.want)
		}
	}
}

// TestMemoryDue: a memory that could not be written is tried again soon, not
// with the next reading of the clock.
func TestMemoryDue(t *testing.T) {
	peer := dataplane.PeerStatus{PublicKey: key.Public{1}, Endpoint: netip.MustParseAddrPort("203.0.113.9:4500"), Proven: time.Unix(1, 0)}
	moved, unproven := peer, peer
	moved.Endpoint = netip.MustParseAddrPort("203.0.113.10:4500")
	unproven.Endpoint, unproven.Proven = moved.Endpoint, time.Time{}
	start := time.Date(2026, 11, 20, 1, 2, 3, 0, time.UTC)
	for _, tt := range []struct {
		name   string
		peer   dataplane.PeerStatus
		failed string
		after  time.Duration
		want   bool
	}{
		{"saved", peer, "", clockEvery - 1, false},
		{"saved a minute ago", peer, "", clockEvery, true},
		{"a peer moved", moved, "", 1, true},
		{"a peer may have moved", unproven, "", 1, false},
		{"failed just now", peer, "no space", retryEvery - 1, false},
		{"failed a while ago", peer, "no space", retryEvery, true},
	} {
		l := newLoop(t.TempDir(), slog.New(slog.DiscardHandler))
		l.memory.Clock = start
		l.saved = map[key.Public]netip.AddrPort{peer.PublicKey: peer.Endpoint}
		if tt.failed != "" {
			l.notes["memory"] = tt.failed
		}
		if got := l.saveDue(start.Add(tt.after), []dataplane.PeerStatus{tt.peer}); got != tt.want {
			t.Errorf("%s: due %t, want %t", tt.name, got, tt.want)
		}
	}
}
