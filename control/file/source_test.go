package file_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"corax/control"
	"corax/control/file"
)

// watched is a directory with a running Source.
type watched struct {
	t       *testing.T
	dir     string
	updates chan control.Snapshot
	last    control.Snapshot
}

// patience bounds every wait for the file system and the source.
const patience = 20 * time.Second

func watchDir(t *testing.T, dir string, rescan time.Duration) *watched {
	t.Helper()
	w := &watched{t: t, dir: dir, updates: make(chan control.Snapshot, 64)}
	s, err := file.New(file.Config{
		Dir: dir, Rescan: rescan, Quiet: 10 * time.Millisecond,
		Update: func(s control.Snapshot) { w.updates <- s },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not end")
		}
	})
	return w
}

// write replaces a file the way that careful programs do.
func (w *watched) write(name, text string) {
	w.t.Helper()
	tmp := filepath.Join(w.dir, "."+name+".tmp")
	if err := errors.Join(os.WriteFile(tmp, []byte(text), 0o600), os.Rename(tmp, filepath.Join(w.dir, name))); err != nil {
		w.t.Fatal(err)
	}
}

// until waits for a snapshot with exactly these Gateways and problems, each
// given by a part of its text.
func (w *watched) until(names string, problems ...string) {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case w.last = <-w.updates:
			if !w.last.EnableTunnel || !w.last.EnableProxy {
				w.t.Fatal("a mode is off")
			}
			if namesOf(w.last) == names && match(w.last.Problems, problems) {
				return
			}
		case <-deadline:
			w.t.Fatalf("last: gateways %q, problems %v; want %q, %q", namesOf(w.last), w.last.Problems, names, problems)
		}
	}
}

func namesOf(s control.Snapshot) string {
	var names []string
	for _, g := range s.Gateways {
		name := g.Metadata.Name
		if v := g.Metadata.Annotations["v"]; v != "" {
			name += "=" + v
		}
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

func match(ps []control.Problem, parts []string) bool {
	if len(ps) != len(parts) {
		return false
	}
	for i, p := range ps {
		if !strings.Contains(p.String(), parts[i]) {
			return false
		}
	}
	return true
}

func version(name, v string) string {
	return head + "metadata: {name: " + name + ", annotations: {v: \"" + v + "\"}}\n"
}

func TestSourceFollowsFiles(t *testing.T) {
	w := watchDir(t, t.TempDir(), time.Hour)
	w.until("")
	w.write("b.yaml", version("b", "1"))
	w.until("b=1")
	w.write("a.json", `{"apiVersion": "raven.openyurt.io/v1beta1", "kind": "Gateway", "metadata": {"name": "a"}}`)
	w.until("a b=1")
	w.write("b.yaml", version("b", "2"))
	w.until("a b=2")
	// What does not count.
	w.write("notes.txt", "x")
	w.write(".hidden.yaml", "x: [")
	if err := os.Mkdir(filepath.Join(w.dir, "dir.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	w.write("c.yml", gateway("c"))
	w.until("a b=2 c")
	if err := os.Remove(filepath.Join(w.dir, "b.yaml")); err != nil {
		t.Fatal(err)
	}
	w.until("a c")
}

// TestSourceLastGood walks one file through mistakes and back.
func TestSourceLastGood(t *testing.T) {
	w := watchDir(t, t.TempDir(), time.Hour)
	w.write("f.yaml", version("a", "1")+"---\n"+version("b", "1"))
	w.until("a=1 b=1")

	w.write("f.yaml", version("a", "2")+"---\n"+version("b", "2")+"extra: 1\n")
	w.until("a=2 b=1", "f.yaml:8: extra: unknown field")

	w.write("f.yaml", version("a", "3")+"---\n{")
	w.until("a=3 b=1", "f.yaml:")

	w.write("f.yaml", "")
	w.until("a=3 b=1", "no Gateway in it")

	w.write("f.yaml", strings.Repeat("#", file.MaxSize+1))
	w.until("a=3 b=1", "larger than")

	w.write("f.yaml", version("b", "4"))
	w.until("b=4")
}

// TestSourceBadValue checks that a bad value comes through as a problem, with
// the object in force.
func TestSourceBadValue(t *testing.T) {
	w := watchDir(t, t.TempDir(), time.Hour)
	w.write("f.yaml", version("a", "1")+"spec: {exposeType: Somehow}\n")
	w.until("a=1", "f.yaml:4: gateway/a: spec.exposeType:")
	// Moving the line changes the report.
	w.write("f.yaml", "# one more line\n"+version("a", "1")+"spec: {exposeType: Somehow}\n")
	w.until("a=1", "f.yaml:5: gateway/a: spec.exposeType:")
}

func TestSourceSameName(t *testing.T) {
	w := watchDir(t, t.TempDir(), time.Hour)
	w.write("2.yaml", version("a", "second"))
	w.until("a=second")
	w.write("1.yaml", version("a", "first"))
	w.until("a=first", "2.yaml:1: metadata.name: gateway a is already defined in 1.yaml:1")
	if err := os.Remove(filepath.Join(w.dir, "1.yaml")); err != nil {
		t.Fatal(err)
	}
	w.until("a=second")
}

// TestSourceConfigMap swaps a directory the way that the kubelet does.
func TestSourceConfigMap(t *testing.T) {
	dir := t.TempDir()
	w := &watched{t: t, dir: dir}
	generation := func(name, text string) {
		t.Helper()
		if err := errors.Join(
			os.Mkdir(filepath.Join(dir, name), 0o700),
			os.WriteFile(filepath.Join(dir, name, "f.yaml"), []byte(text), 0o600),
			os.Symlink(name, filepath.Join(dir, "..data_tmp")),
			os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")),
		); err != nil {
			t.Fatal(err)
		}
	}
	generation("..1", version("a", "1"))
	if err := os.Symlink("..data/f.yaml", filepath.Join(dir, "f.yaml")); err != nil {
		t.Fatal(err)
	}
	w = watchDir(t, dir, time.Hour)
	w.until("a=1")
	generation("..2", version("a", "2"))
	if err := os.RemoveAll(filepath.Join(dir, "..1")); err != nil {
		t.Fatal(err)
	}
	w.until("a=2")
	// A link that leads nowhere is no removed file.
	if err := os.RemoveAll(filepath.Join(dir, "..2")); err != nil {
		t.Fatal(err)
	}
	w.write("other.yaml", gateway("b"))
	w.until("a=2 b", "f.yaml: cannot be read: no such file")
}

// TestSourceDirectoryAway removes the directory and makes it again.
func TestSourceDirectoryAway(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gateways")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	w := watchDir(t, dir, 20*time.Millisecond)
	w.write("f.yaml", version("a", "1"))
	w.until("a=1")
	away := dir + ".away"
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	w.until("a=1", "the directory cannot be read")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	w.until("")
	w.write("f.yaml", version("a", "2"))
	w.until("a=2")
}

// TestSourceReplacedDirectory checks that events of a new directory of the same
// name are heard: the rescan alone would take an hour after the first.
func TestSourceReplacedDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gateways")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	w := watchDir(t, dir, time.Hour)
	w.until("")
	next := dir + ".next"
	if err := errors.Join(os.Mkdir(next, 0o700), os.Rename(dir, dir+".old"), os.Rename(next, dir)); err != nil {
		t.Fatal(err)
	}
	w.write("f.yaml", version("a", "1"))
	w.until("a=1")
	w.write("f.yaml", version("a", "2"))
	w.until("a=2")
}

// TestSourceLinkedElsewhere changes a file outside of the directory, of which
// only the rescan hears.
func TestSourceLinkedElsewhere(t *testing.T) {
	dir, other := t.TempDir(), filepath.Join(t.TempDir(), "x.yaml")
	if err := errors.Join(
		os.WriteFile(other, []byte(version("a", "1")), 0o600),
		os.Symlink(other, filepath.Join(dir, "f.yaml")),
	); err != nil {
		t.Fatal(err)
	}
	w := watchDir(t, dir, 20*time.Millisecond)
	w.until("a=1")
	if err := os.WriteFile(other, []byte(version("a", "2")), 0o600); err != nil {
		t.Fatal(err)
	}
	w.until("a=2")
}

// TestSourcePipe checks that a pipe does not stop the source.
func TestSourcePipe(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "p.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := watchDir(t, dir, time.Hour)
	w.until("", "p.yaml: cannot be read: not a regular file")
	w.write("f.yaml", gateway("a"))
	w.until("a", "not a regular file")
}

// TestSourceOnlyChanges checks that Update is not called for nothing: rewriting
// the same text gives no update between two that differ.
func TestSourceOnlyChanges(t *testing.T) {
	w := watchDir(t, t.TempDir(), time.Millisecond)
	w.until("")
	w.write("f.yaml", version("a", "1"))
	w.until("a=1")
	for range 20 {
		w.write("f.yaml", version("a", "1"))
	}
	w.write("f.yaml", version("a", "2"))
	for {
		select {
		case s := <-w.updates:
			if s.Equal(w.last) {
				t.Fatal("an update that says nothing new")
			}
			if namesOf(s) == "a=2" {
				return
			}
			w.last = s
		case <-time.After(patience):
			t.Fatal("the last change is missing")
		}
	}
}

func TestNew(t *testing.T) {
	update := func(control.Snapshot) {}
	if _, err := file.New(file.Config{Dir: filepath.Join(t.TempDir(), "none"), Update: update}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := file.New(file.Config{Dir: plain, Update: update}); err == nil {
		t.Error("a file was taken for a directory")
	}
	if _, err := file.New(file.Config{Dir: t.TempDir()}); err == nil {
		t.Error("no Update function was accepted")
	}
}
