package cluster

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var _ T = testing.TB(nil)

// TestRun follows programs to their end, and through what they asked to clean up.
func TestRun(t *testing.T) {
	for _, test := range []struct {
		name string
		run  func(t T, say func(string))
		said []string
		err  string
	}{
		{"to the end", func(_ T, say func(string)) { say("end") }, []string{"end"}, ""},
		{
			"errors add up",
			func(t T, say func(string)) {
				t.Helper()
				t.Errorf("first %d", 1)
				t.Errorf("second %d", 2)
				say("end")
			},
			[]string{"end"},
			"first 1\nsecond 2",
		},
		{
			"fatal ends it",
			func(t T, say func(string)) {
				t.Errorf("a failure")
				t.Fatalf("fatal")
				say("end")
			},
			nil,
			"a failure\nfatal",
		},
		{
			"skipped is failed",
			func(t T, say func(string)) {
				t.Skipf("no %s", "programs")
				say("end")
			},
			nil,
			"no programs",
		},
		{
			"the last is cleaned up first",
			func(t T, say func(string)) {
				for _, name := range []string{"one", "two", "three"} {
					t.Cleanup(func() {
						if t.Context().Err() == nil {
							say("context goes on")
						}
						say(name)
						if name == "three" {
							t.Fatalf("cannot clean up %s", name)
						}
					})
				}
				t.Fatalf("fatal")
			},
			[]string{"three", "two", "one"},
			"fatal\ncannot clean up three",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var said []string
			err := Run(t.Context(), t.TempDir(), func(t T) { test.run(t, func(s string) { said = append(said, s) }) })
			if diff := cmp.Diff(test.said, said); diff != "" {
				t.Errorf("said (-want +got):\n%s", diff)
			}
			text := ""
			if err != nil {
				text = err.Error()
			}
			if text != test.err {
				t.Errorf("error %q, want %q", text, test.err)
			}
		})
	}
}

// TestRunFolders makes folders where the caller removes them.
func TestRunFolders(t *testing.T) {
	dir := t.TempDir()
	var made []string
	err := Run(t.Context(), dir, func(t T) { made = append(made, t.TempDir(), t.TempDir()) })
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*"))
	slices.Sort(made)
	if err != nil || !slices.Equal(made, found) || len(found) != 2 {
		t.Errorf("made %v, found %v, %v", made, found, err)
	}
	missing := filepath.Join(dir, "missing")
	if err := Run(t.Context(), missing, func(t T) { t.TempDir() }); err == nil {
		t.Error("a folder was made in one that is not there")
	}
	if _, err := os.Stat(missing); !os.IsNotExist(err) {
		t.Error(err)
	}
}

// TestRunInterrupted ends what waits.
func TestRunInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	if err := Run(ctx, t.TempDir(), func(t T) {
		cancel()
		<-t.Context().Done()
	}); err != nil {
		t.Error(err)
	}
}
