package file

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"corax/control"
)

// TestNothingReadYet: a directory that cannot be read at first is no empty one. An
// agent that took it for one would let go of what a dead predecessor kept in.
func TestNothingReadYet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gateways")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	got := make(chan control.Snapshot, 10)
	s, err := New(Config{Dir: dir, Quiet: time.Millisecond, Rescan: 20 * time.Millisecond, Update: func(s control.Snapshot) { got <- s }})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	s.scan()
	if len(got) != 0 {
		t.Fatalf("a snapshot before anything was read: %+v", <-got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	select {
	case snapshot := <-got:
		if len(snapshot.Gateways) != 0 {
			t.Errorf("gateways out of nowhere: %+v", snapshot)
		}
	case <-time.After(20 * time.Second):
		t.Error("no snapshot of the directory that is there now")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
