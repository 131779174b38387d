package key

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestSweep: a key that a killed writer left goes, once there is a key; one that
// is being written stays.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	left := func(name string, age time.Duration) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		return path
	}
	there := func(path string) bool {
		_, err := os.Lstat(path)
		return err == nil
	}
	dead, living, other := left(".private.key.1", time.Hour), left(".private.key.2", 0), left(".private.keys", time.Hour)
	k, created, err := LoadOrCreate(dir)
	if err != nil || !created || !there(dead) {
		t.Fatalf("first: created %v, %v", created, err)
	}
	again, created, err := LoadOrCreate(dir)
	if err != nil || created || again != k {
		t.Fatalf("second: created %v, %v", created, err)
	}
	if there(dead) || !there(living) || !there(other) || !there(filepath.Join(dir, FileName)) {
		t.Errorf("dead %v, living %v, other %v", there(dead), there(living), there(other))
	}
}
