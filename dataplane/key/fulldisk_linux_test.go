package key

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// TestFullDisk fills a tiny file system of its own: no key file and no
// temporary file may be left, and with room again the same call succeeds.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	done := make(chan struct{})
	var mountErr error
	go func() {
		defer close(done)
		// Never unlocked: the thread ends with this goroutine, and with it its
		// mount namespace.
		runtime.LockOSThread()
		if mountErr = mountTiny(dir); mountErr == nil {
			full(t, filepath.Join(dir, "state"), filepath.Join(dir, "fill"))
		}
	}()
	<-done
	switch {
	case mountErr == nil:
	case os.Getenv("CI") != "":
		t.Fatalf("cannot mount a tmpfs: %v", mountErr)
	default:
		t.Skipf("cannot mount a tmpfs: %v", mountErr)
	}
}

// mountTiny mounts a small tmpfs that only this thread sees.
func mountTiny(dir string) error {
	err := syscall.Unshare(syscall.CLONE_NEWNS)
	if err == nil {
		err = syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
	}
	if err == nil {
		err = syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=0700")
	}
	return err
}

func full(t *testing.T, dir, fill string) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Error(err)
		return
	}
	if err := os.WriteFile(fill, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("filling the disk: %v, want ENOSPC", err)
		return
	}
	k, created, err := LoadOrCreate(dir)
	if !errors.Is(err, syscall.ENOSPC) || created || !k.IsZero() {
		t.Errorf("on a full disk: created %v, error %v, want ENOSPC", created, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v (%v)", entries, err)
	}
	if err := os.Remove(fill); err != nil {
		t.Error(err)
	}
	if _, created, err := LoadOrCreate(dir); err != nil || !created {
		t.Errorf("with room again: created %v, error %v", created, err)
	}
}
