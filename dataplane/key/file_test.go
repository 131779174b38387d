package key

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestLoadOrCreate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "state")
	if _, err := Load(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Load without a directory: %v, want fs.ErrNotExist", err)
	}
	k, created, err := LoadOrCreate(dir)
	if err != nil || !created || k.IsZero() {
		t.Fatalf("first: created %v, error %v", created, err)
	}
	again, created, err := LoadOrCreate(dir)
	if err != nil || created || again != k {
		t.Fatalf("second: created %v, error %v, same key %v", created, err, again == k)
	}
	if got, err := Load(dir); err != nil || got != k {
		t.Fatalf("Load: error %v, same key %v", err, got == k)
	}
	wantMode(t, dir, fs.ModeDir|0o700)
	wantMode(t, filepath.Join(dir, FileName), 0o600)
	wantOnlyKey(t, dir)
}

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	st, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode() != want {
		t.Errorf("%s has mode %v, want %v", path, st.Mode(), want)
	}
}

// wantOnlyKey fails when something beside the key file is left in dir.
func wantOnlyKey(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != FileName {
			t.Errorf("%s is left in the state directory", e.Name())
		}
	}
}

func TestConcurrentCreation(t *testing.T) {
	for range 20 {
		dir := filepath.Join(t.TempDir(), "state")
		const n = 8
		var (
			keys [n]Private
			made [n]bool
			errs [n]error
			wg   sync.WaitGroup
		)
		for i := range n {
			wg.Go(func() { keys[i], made[i], errs[i] = LoadOrCreate(dir) })
		}
		wg.Wait()
		creators := 0
		for i := range n {
			if errs[i] != nil {
				t.Fatal(errs[i])
			}
			if keys[i] != keys[0] {
				t.Fatal("two callers got different keys")
			}
			if made[i] {
				creators++
			}
		}
		if creators != 1 {
			t.Fatalf("%d callers made the key, want 1", creators)
		}
		wantOnlyKey(t, dir)
	}
}

func TestLoadRefuses(t *testing.T) {
	good := alicePrivate + "\n"
	for _, tt := range []struct {
		name  string
		setup func(t *testing.T, dir, file string)
		want  string
		hint  string
	}{
		{name: "others read the key", want: "mode 0604", hint: "chmod 600 ", setup: func(t *testing.T, _, file string) {
			put(t, file, good, 0o604)
		}},
		{name: "the group writes the key", want: "mode 0620", hint: "chmod 600 ", setup: func(t *testing.T, _, file string) {
			put(t, file, good, 0o620)
		}},
		{name: "open directory", want: "mode 0750", hint: "chmod 700 ", setup: func(t *testing.T, dir, file string) {
			put(t, file, good, 0o600)
			chmod(t, dir, 0o750)
		}},
		{name: "shared directory", want: "mode 0777", hint: "of its own", setup: func(t *testing.T, dir, _ string) {
			chmod(t, dir, 0o777|fs.ModeSticky)
		}},
		{name: "symbolic link", want: "symbolic link", setup: func(t *testing.T, dir, file string) {
			put(t, filepath.Join(dir, "elsewhere"), good, 0o600)
			check(t, os.Symlink("elsewhere", file))
		}},
		{name: "dangling link", want: "symbolic link", setup: func(t *testing.T, _, file string) {
			check(t, os.Symlink("nowhere", file))
		}},
		{name: "FIFO", want: "not a regular file", setup: func(t *testing.T, _, file string) {
			check(t, syscall.Mkfifo(file, 0o600))
		}},
		{name: "directory", want: "not a regular file", setup: func(t *testing.T, _, file string) {
			check(t, os.Mkdir(file, 0o700))
		}},
		{name: "empty file", want: "0 bytes, want 32", setup: func(t *testing.T, _, file string) {
			put(t, file, "", 0o600)
		}},
		{name: "half a key", want: "not base64", setup: func(t *testing.T, _, file string) {
			put(t, file, good[:22], 0o600)
		}},
		{name: "long file", want: "not base64", setup: func(t *testing.T, _, file string) {
			put(t, file, strings.Repeat(good, 100), 0o600)
		}},
		{name: "zeros", want: "all bytes are zero", setup: func(t *testing.T, _, file string) {
			put(t, file, strings.Repeat("A", 43)+"=\n", 0o600)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			check(t, os.Chmod(dir, 0o700))
			tt.setup(t, dir, filepath.Join(dir, FileName))
			k, created, err := LoadOrCreate(dir)
			if err == nil || !strings.Contains(err.Error(), tt.want) || created || !k.IsZero() {
				t.Fatalf("created %v, error %v, want one with %q", created, err, tt.want)
			}
			if strings.Contains(err.Error(), alicePrivate[:8]) {
				t.Errorf("the error shows the key: %v", err)
			}
			var mode *ModeError
			if isMode := errors.As(err, &mode); isMode != (tt.hint != "") || isMode && !strings.Contains(mode.Hint(), tt.hint) {
				t.Errorf("error %v has not the hint %q", err, tt.hint)
			}
		})
	}
}

func TestStateDirectoryIsAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	put(t, file, "", 0o600)
	if _, _, err := LoadOrCreate(file); err == nil || !strings.Contains(err.Error(), "state directory") {
		t.Errorf("error %v", err)
	}
	if _, err := Load(file); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("error %v", err)
	}
}

// A key that came from elsewhere, without a line end, is as good.
func TestLoadForeignFile(t *testing.T) {
	for _, text := range []string{alicePrivate, alicePrivate + "\n", alicePrivate + "\r\n"} {
		dir := t.TempDir()
		check(t, os.Chmod(dir, 0o700))
		put(t, filepath.Join(dir, FileName), text, 0o400)
		k, err := Load(dir)
		if err != nil || k.Public().String() != alicePublic {
			t.Errorf("%q: key %v, error %v", text, k.Public(), err)
		}
	}
}

func put(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	check(t, os.WriteFile(path, []byte(text), 0o600))
	check(t, os.Chmod(path, mode))
}

func chmod(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	check(t, os.Chmod(path, mode))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func FuzzKeyFile(f *testing.F) {
	f.Add(alicePrivate + "\n")
	f.Add("")
	f.Add(strings.Repeat("A", 43) + "=")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := parseFile("f", text)
		if (err == nil) == k.IsZero() {
			t.Errorf("error %v, zero key %v", err, k.IsZero())
		}
	})
}
