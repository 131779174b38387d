package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// asUser runs f on a thread that is user uid. The thread ends with f.
func asUser(t *testing.T, uid uintptr, f func() (string, error)) (string, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("only root can be another user")
		}
		t.Skip("only root can be another user")
	}
	type result struct {
		text string
		err  error
	}
	out := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked
		// The raw call changes this thread alone, unlike syscall.Setresuid.
		if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
			out <- result{err: errno}
			return
		}
		text, err := f()
		out <- result{text, err}
	}()
	r := <-out
	return r.text, r.err
}

func TestForeignUserIsRefused(t *testing.T) {
	socket, _ := startLocal(t, &fakeAgent{status: Status{Node: "secretive"}})
	for dir := filepath.Dir(socket); dir != filepath.Clean(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const request = "GET /v1/status HTTP/1.0\r\n\r\n"
	dial := func() (string, error) {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		return exchange(conn, request)
	}
	if answer, err := asUser(t, 65534, dial); !errors.Is(err, syscall.EACCES) {
		t.Errorf("mode 0600: answer %q, error %v, want EACCES", answer, err)
	}
	// The mode does not matter to the second check.
	if err := os.Chmod(socket, 0o666); err != nil {
		t.Fatal(err)
	}
	answer, err := asUser(t, 65534, dial)
	if err != nil || !strings.Contains(answer, "403") || strings.Contains(answer, "secretive") {
		t.Errorf("mode 0666: answer %q, error %v, want 403", answer, err)
	}
	if answer, err := asUser(t, 0, dial); err != nil || !strings.Contains(answer, "secretive") {
		t.Errorf("root: answer %q, error %v", answer, err)
	}
}
