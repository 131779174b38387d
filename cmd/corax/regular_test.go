package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"corax/dataplane/key"
)

// TestSecretFile: what is no file that its owner alone can read is refused, at
// once and without its contents.
func TestSecretFile(t *testing.T) {
	file := func(text string, mode os.FileMode) func(string) error {
		return func(path string) error {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				return err
			}
			return os.Chmod(path, mode)
		}
	}
	for _, tt := range []struct {
		name string
		make func(path string) error
		want string // in the error; empty: the secret is hush-hush
	}{
		{"a file", file("hush-hush\n", 0o600), ""},
		{"read only", file("hush-hush", 0o400), ""},
		{"for a group", file("hush-hush", 0o440), ""},
		{"a link, as in a Secret volume", func(path string) error {
			if err := file("hush-hush", 0o400)(path + ".data"); err != nil {
				return err
			}
			return os.Symlink(path+".data", path)
		}, ""},
		{"for everybody", file("hush-hush", 0o644), "has mode 0644"},
		{"for others", file("hush-hush", 0o604), "has mode 0604"},
		{"a group may write", file("hush-hush", 0o620), "has mode 0620"},
		{"a pipe", func(path string) error { return syscall.Mkfifo(path, 0o600) }, "is not a regular file"},
		{"a directory", func(path string) error { return os.Mkdir(path, 0o700) }, "is not a regular file"},
		{"a device", func(path string) error { return os.Symlink("/dev/zero", path) }, "is not a regular file"},
		{"large", file(strings.Repeat("hush-hush", maxSecret), 0o600), "larger than 4096 bytes"},
		{"empty", file("\n", 0o600), "is empty"},
		{"nothing", func(string) error { return nil }, "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "psk")
			if err := tt.make(path); err != nil {
				t.Fatal(err)
			}
			var got key.Preshared
			err := within(t, func() error { return presharedFile(&got, readSecret)(path) })
			switch {
			case tt.want == "" && (err != nil || got != key.PresharedFromSecret([]byte("hush-hush"))):
				t.Errorf("%v, or another secret", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hush") || !got.IsZero()):
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// TestMemoryPipe: a pipe in place of the memory costs what was remembered.
func TestMemoryPipe(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, memoryFile), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := within(t, func() error { _, err := loadMemory(dir); return err }); err == nil {
		t.Error("a pipe was read")
	}
}

// within fails the test when f does not return soon.
func within(t *testing.T, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("it hangs")
		return nil
	}
}

// TestMemorySweep: what killed writers left goes at the next start; what may have
// a writer stays, and so does what is not ours.
func TestMemorySweep(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-time.Hour)
	for name, age := range map[string]time.Time{
		memoryFile: old, memoryFile + ".123": old, memoryFile + ".new": time.Now(), "memory.json5": old, "private.key": old,
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, age, age); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, memoryFile+".dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := loadMemory(dir); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if diff := cmp.Diff([]string{"memory.json", "memory.json.dir", "memory.json.new", "memory.json5", "private.key"}, left); diff != "" {
		t.Error(diff)
	}
}
