package wg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// uapiDir is where `wg` looks for userspace devices.
	uapiDir = "/var/run/wireguard"
	// uapiTime bounds one connection: wireguard-go holds a lock while it reads
	// a request, so a client that stalls would block every change of peers.
	uapiTime = 10 * time.Second
)

// uapiSocket is the Unix socket that stock `wg` talks to. wireguard-go's own
// listener changes the umask of the whole process and leaves goroutines behind.
type uapiSocket struct {
	l    *net.UnixListener
	path string
	file os.FileInfo // what we made at path

	wg    sync.WaitGroup
	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil when closed
}

// listenUAPI opens the socket for the interface name, for our own user only. It
// replaces the socket of a dead process, never of a live one.
func listenUAPI(dir, name string) (*uapiSocket, error) {
	path := filepath.Join(dir, name+".sock")
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("%s is in use", path)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	// Made where nobody else can reach it, and moved when its mode is right.
	private, err := os.MkdirTemp(dir, "."+name+"-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	first := filepath.Join(private, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: first, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	u := &uapiSocket{l: l, path: path, conns: make(map[net.Conn]struct{})}
	if err := u.publish(first); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return u, nil
}

func (u *uapiSocket) publish(first string) error {
	if err := os.Chmod(first, 0o600); err != nil {
		return err
	}
	if err := os.Rename(first, u.path); err != nil {
		return err
	}
	info, err := os.Lstat(u.path)
	u.file = info
	return err
}

// serve answers connections until ctx is done, and joins what it started.
func (u *uapiSocket) serve(ctx context.Context, handle func(net.Conn)) {
	stop := context.AfterFunc(ctx, u.close)
	defer stop()
	for {
		c, err := u.l.Accept()
		if err != nil {
			break
		}
		if !u.track(c) {
			_ = c.Close()
			break
		}
		u.wg.Go(func() { u.answer(c, handle) })
	}
	u.close()
	u.wg.Wait()
}

func (u *uapiSocket) answer(c net.Conn, handle func(net.Conn)) {
	_ = c.SetDeadline(time.Now().Add(uapiTime))
	handle(c)
	u.mu.Lock()
	delete(u.conns, c)
	u.mu.Unlock()
}

func (u *uapiSocket) track(c net.Conn) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.conns == nil {
		return false
	}
	u.conns[c] = struct{}{}
	return true
}

// close ends serve and every connection, and removes the socket if it is still
// ours. It may be called more than once.
func (u *uapiSocket) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.conns == nil {
		return
	}
	for c := range u.conns {
		_ = c.Close()
	}
	u.conns = nil
	if now, err := os.Lstat(u.path); err == nil && os.SameFile(now, u.file) {
		_ = os.Remove(u.path)
	}
	_ = u.l.Close()
}
