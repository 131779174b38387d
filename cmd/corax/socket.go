package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// errSocketAlive says that another agent serves the socket.
var errSocketAlive = errors.New("another agent answers there")

// listenSocket opens the unix socket path, mode 0600, and its directory. The
// socket of a dead agent is replaced, that of a living one is errSocketAlive.
// Closing the listener removes the socket.
func listenSocket(path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("local API: %w", err)
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("local API: lock %s: %w", dir, err)
	}
	defer unlock()
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("local API: %s: %w", path, err)
	}
	lc := net.ListenConfig{Control: ownerMode}
	ln, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("local API: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("local API: %w", err), ln.Close())
	}
	return ln, nil
}

// lockDir keeps two agents that start at once from removing each other's socket
// as stale.
func lockDir(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return func() { _ = d.Close() }, nil
}

// removeStale removes a socket that nobody answers.
func removeStale(path string) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode().Type() != fs.ModeSocket:
		return errors.New("exists and is no socket")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		return errors.Join(errSocketAlive, conn.Close())
	case errors.Is(err, syscall.EAGAIN): // its queue is full
		return errSocketAlive
	case !errors.Is(err, syscall.ECONNREFUSED):
		return err
	}
	return os.Remove(path)
}

// ownerMode sets the mode before the socket has a name: on Linux the name takes
// it over, so that there is no moment in which others can connect.
func ownerMode(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), 0o600) })
}

// peerKey is the context key of the caller's credentials.
type peerKey struct{}

// caller is who opened a connection; err says that the kernel did not tell.
type caller struct {
	uid uint32
	err error
}

// withPeer notes who opened the connection, as the kernel says.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	who := caller{err: errors.ErrUnsupported}
	if unix, ok := conn.(*net.UnixConn); ok {
		who.uid, who.err = peerUID(unix)
	}
	return context.WithValue(ctx, peerKey{}, who)
}

// ownerOnly refuses everybody but root and the user that the agent runs as. The
// socket's mode does the same; this holds when somebody widens it.
func ownerOnly(h http.Handler) http.Handler {
	self := uint32(os.Geteuid())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, ok := r.Context().Value(peerKey{}).(caller)
		if !ok || who.err != nil || who.uid != 0 && who.uid != self {
			writeJSON(w, http.StatusForbidden, apiError{fmt.Sprintf("only root and user %d may ask this agent", self)})
			return
		}
		h.ServeHTTP(w, r)
	})
}
