package statefile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"corax/control/internal/statefile"
)

func TestWriteReplacesWhole(t *testing.T) {
	f := statefile.File{Dir: t.TempDir(), Name: "x.json", Max: 16}
	if _, err := f.Read(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("read before there is one: %v", err)
	}
	for _, want := range []string{"first and long", "second"} {
		if err := f.Write([]byte(want)); err != nil {
			t.Fatal(err)
		}
		got, err := f.Read()
		if err != nil || string(got) != want {
			t.Fatalf("read %q, %v, want %q", got, err, want)
		}
	}
	st, err := os.Stat(f.Path())
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", st.Mode(), err)
	}
	if entries, _ := os.ReadDir(f.Dir); len(entries) != 1 {
		t.Errorf("%d files are left, want 1", len(entries))
	}
}

func TestBounds(t *testing.T) {
	f := statefile.File{Dir: t.TempDir(), Name: "x", Max: 4}
	if err := f.Write([]byte("12345")); err == nil {
		t.Error("more than Max was written")
	}
	if err := os.WriteFile(f.Path(), []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Read(); err == nil {
		t.Error("more than Max was read")
	}
}

func TestReadsOnlyRegularFiles(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"pipe":   func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"folder": func(p string) error { return os.Mkdir(p, 0o700) },
		"link": func(p string) error {
			other := p + ".other"
			if err := os.WriteFile(other, []byte("x"), 0o600); err != nil {
				return err
			}
			return os.Symlink(other, p)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := statefile.File{Dir: t.TempDir(), Name: "x", Max: 4}
			if err := make(f.Path()); err != nil {
				t.Fatal(err)
			}
			if b, err := f.Read(); err == nil {
				t.Errorf("read %q", b)
			}
		})
	}
}

func TestSweep(t *testing.T) {
	f := statefile.File{Dir: t.TempDir(), Name: "x", Max: 4}
	old, young, other := filepath.Join(f.Dir, "x.1"), filepath.Join(f.Dir, "x.2"), filepath.Join(f.Dir, "y.1")
	for _, p := range []string{old, young, other} {
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hour := time.Now().Add(-time.Hour)
	for _, p := range []string{old, other} {
		if err := os.Chtimes(p, hour, hour); err != nil {
			t.Fatal(err)
		}
	}
	f.Sweep()
	for p, want := range map[string]bool{old: false, young: true, other: true} {
		if _, err := os.Stat(p); (err == nil) != want {
			t.Errorf("%s: there is %v, want %v", filepath.Base(p), err == nil, want)
		}
	}
}
