package front

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestPrivateSocket: a socket is its owner's from the moment that it is there, whatever
// the umask.
func TestPrivateSocket(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	at := filepath.Join(t.TempDir(), "s")
	lc := net.ListenConfig{Control: private}
	l, err := lc.Listen(t.Context(), "unix", at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if i, err := os.Stat(at); err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", i.Mode(), err)
	}
}
