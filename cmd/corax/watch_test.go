package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
)

// pages is a writer that hands over what each Write brings.
type pages chan string

func (p pages) Write(b []byte) (int, error) {
	p <- string(b)
	return len(b), nil
}

func (p pages) next(t *testing.T) string {
	t.Helper()
	select {
	case page := <-p:
		return page
	case <-time.After(20 * time.Second):
		t.Fatal("no page came")
		return ""
	}
}

func TestWatch(t *testing.T) {
	f := &fakeAgent{status: Status{Node: "n1", Role: RoleNone, Version: "one"}}
	socket, stop := startLocal(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := make(pages)
	code := make(chan int)
	go func() {
		code <- run(ctx, []string{"status", "--watch", "--socket", socket}, out, &bytes.Buffer{})
	}()

	if page := out.next(t); !strings.Contains(page, "version      one") || strings.Contains(page, "\x1b") {
		t.Errorf("first page:\n%s", page)
	}
	f.set(func(s *Status) { s.Version = "two" })
	if page := out.next(t); !strings.Contains(page, "version      two") || strings.Contains(page, "version      one") {
		t.Errorf("second page:\n%s", page)
	}
	stop()
	if page := out.next(t); !strings.Contains(page, "corax: status: ask the agent: ") {
		t.Errorf("without an agent:\n%s", page)
	}
	// The agent comes back, with a peer that cannot be reached.
	f.set(func(s *Status) { s.Peers = []Peer{{Gateway: "edge-a", Path: Path{Kind: PathNone}}} })
	startLocalAt(t, f, agentConfig{Socket: socket})
	if page := out.next(t); !strings.Contains(page, "1 of 1 not reachable") {
		t.Errorf("with the agent back:\n%s", page)
	}
	cancel()
	if got := <-code; got != exitFailed {
		t.Errorf("exit code %d, want that of the last look, %d", got, exitFailed)
	}
}

func TestPager(t *testing.T) {
	for _, tt := range []struct {
		name  string
		clear bool
		want  string
	}{
		{"terminal", true, "\x1b[H\x1b[2Ja\n\x1b[H\x1b[2Jb\n"},
		{"file", false, "a\n\nb\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			p := pager{w: &out, clear: tt.clear}
			for _, page := range []string{"a\n", "a\n", "b\n", "b\n"} {
				if err := p.show([]byte(page)); err != nil {
					t.Fatal(err)
				}
			}
			if out.String() != tt.want {
				t.Errorf("%q, want %q", out.String(), tt.want)
			}
		})
	}
}
