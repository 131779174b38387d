package front

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"corax/proxy"
)

// sockets are the listeners that Run has open. One goroutine owns them.
type sockets struct {
	front *Front
	group *sync.WaitGroup
	open  map[socketKey]*socket
}

// socket is one listener, with the node port that is behind it now.
type socket struct {
	kind string
	ln   net.Listener
	port atomic.Uint32
}

// follow opens and closes listeners until there are those that are wanted, and
// returns how they are.
func (s *sockets) follow(ctx context.Context, want []wanted) []Listener {
	keep := map[socketKey]bool{}
	for _, w := range want {
		keep[w.key()] = true
	}
	for k, sock := range s.open {
		if !keep[k] {
			_ = sock.ln.Close()
			delete(s.open, k)
		}
	}
	list := make([]Listener, 0, len(want))
	for _, w := range want {
		sock, ok := s.open[w.key()]
		if !ok {
			var err error
			if sock, err = s.listen(ctx, w); err != nil {
				list = append(list, Listener{w.kind, w.addr, err})
				continue
			}
		}
		sock.port.Store(uint32(w.port))
		list = append(list, Listener{Front: w.kind, Addr: sock.ln.Addr().String()})
	}
	return list
}

func (s *sockets) closeAll() {
	for _, sock := range s.open {
		_ = sock.ln.Close()
	}
}

func (s *sockets) listen(ctx context.Context, w wanted) (*socket, error) {
	if w.kind == kindConnect && w.network == "tcp" && s.front.cfg.Connect.Certificate == nil {
		return nil, errors.New("front: CONNECT on TCP needs a certificate and a CA for its callers")
	}
	ln, err := open(ctx, w)
	if err != nil {
		return nil, fmt.Errorf("front: listen on %s: %w", w.addr, err)
	}
	sock := &socket{kind: w.kind, ln: ln}
	sock.port.Store(uint32(w.port))
	s.open[w.key()] = sock
	s.group.Go(func() { s.accept(ctx, sock) })
	return sock, nil
}

func open(ctx context.Context, w wanted) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: proxy.Keepalive()}
	if w.network != "unix" {
		return lc.Listen(ctx, w.network, w.addr)
	}
	// What an agent that was killed left behind refuses connections; a socket that
	// takes them is somebody's.
	if c, err := net.DialTimeout("unix", w.addr, time.Second); err == nil {
		_ = c.Close()
		return nil, syscall.EADDRINUSE
	} else if i, lerr := os.Lstat(w.addr); errors.Is(err, syscall.ECONNREFUSED) && lerr == nil && i.Mode().Type() == os.ModeSocket {
		_ = os.Remove(w.addr)
	}
	// On Linux the socket is made with the mode of its descriptor, so that there is no
	// moment in which others can open it.
	lc.Control = private
	ln, err := lc.Listen(ctx, "unix", w.addr)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(w.addr, 0o600); err != nil {
		_ = ln.Close()
		return nil, err
	}
	return ln, nil
}

// private gives a descriptor to its owner alone, where the system knows of that.
func private(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), 0o600) })
}

// accept takes connections until the listener is closed. Its goroutine also closes
// the listener at the end of ctx.
func (s *sockets) accept(ctx context.Context, sock *socket) {
	defer context.AfterFunc(ctx, func() { _ = sock.ln.Close() })()
	f := s.front
	for {
		c, err := sock.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, most likely: others have to end first.
			f.log.Warn("cannot take a connection", "front", sock.kind, "err", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
				continue
			}
		}
		from := addrOf(c.RemoteAddr())
		leave, ok := f.pending.enter(from.Addr())
		if !ok {
			f.cfg.Counters.Refused(proxy.CodeLimit)
			_ = c.Close()
			continue
		}
		a := &arrival{
			Conn: c, kind: sock.kind, from: from, began: time.Now(), leave: leave,
			port: uint16(sock.port.Load()), listen: addrOf(c.LocalAddr()).Port(),
		}
		s.group.Go(func() { f.serve(ctx, a) })
	}
}

// addrOf returns the zero value for the ends of unix sockets.
func addrOf(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
