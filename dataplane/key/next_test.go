package key_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"corax/dataplane/key"
)

func TestNext(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	first, _, err := key.LoadOrCreate(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := key.LoadNext(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a next key: %v", err)
	}
	if err := key.Promote(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("promote without a next key: %v", err)
	}
	next, created, err := key.CreateNext(dir)
	if err != nil || !created || next.Public() == first.Public() {
		t.Fatalf("%v, %t", err, created)
	}
	again, created, err := key.CreateNext(dir)
	if err != nil || created || again.Public() != next.Public() {
		t.Errorf("another next key: %v, %t", err, created)
	}
	if k, err := key.Load(dir); err != nil || k.Public() != first.Public() {
		t.Errorf("the key changed too early: %v", err)
	}
	if st, err := os.Stat(filepath.Join(dir, key.NextName)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if err := key.Promote(dir); err != nil {
		t.Fatal(err)
	}
	if k, err := key.Load(dir); err != nil || k.Public() != next.Public() {
		t.Errorf("the key did not change: %v", err)
	}
	if _, err := key.LoadNext(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the next key is still there: %v", err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, ".*"))
	if len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestNextRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := key.CreateNext(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, key.NextName), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := key.LoadNext(dir); err == nil {
		t.Error("a key that others can read is used")
	}
	if err := key.Promote(dir); err == nil {
		t.Error("a key that others can read is promoted")
	}
}
