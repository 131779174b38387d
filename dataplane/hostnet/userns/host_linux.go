package userns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"corax/dataplane/hostnet"
)

const (
	// callLimit bounds how long the helper may take for one request: netlink has ten
	// seconds for each of its own.
	callLimit = 60 * time.Second
	// leaveLimit is how long the helper may take to end.
	leaveLimit = 5 * time.Second
)

// Host is the network namespace of a child user namespace, seen from outside. Its
// methods may be called from several goroutines.
type Host struct {
	log    *slog.Logger
	target *target

	mu    sync.Mutex // of calls, held during the whole of each
	calls *net.UnixConn
	left  bool

	events *net.UnixConn
	helper *os.Process
}

// Enter puts the helper into the namespace and opens the TUN there, or attaches to the
// one that an agent left behind. It fails when a Raven agent is in there, as
// [hostnet.New] does. The TUN and the Host are closed one by one.
func Enter(cfg Config) (*Host, *hostnet.TUN, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	h, tun, err := enter(cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("userns: %w", err)
	}
	return h, tun, nil
}

func enter(cfg Config) (*Host, *hostnet.TUN, error) {
	t, err := findTarget(cfg.Namespace)
	if err != nil {
		return nil, nil, err
	}
	h := &Host{log: cfg.Log.With("component", "userns"), target: t}
	if err := h.startHelper(cfg); err != nil {
		t.close()
		return nil, nil, err
	}
	tun, err := h.open(cfg)
	if err != nil {
		h.Leave()
		return nil, nil, err
	}
	h.log.Info("in the namespace", "of", t.name, "namespace", t.id, "helper", h.helper.Pid)
	return h, tun, nil
}

// startHelper makes the sockets and the helper at their other ends.
func (h *Host) startHelper(cfg Config) (err error) {
	var theirs [2]int
	var ours [2]*net.UnixConn
	for i, name := range []string{"calls", "events"} {
		if ours[i], theirs[i], err = socketPair(name); err != nil {
			break
		}
		defer unix.Close(theirs[i])
	}
	if err == nil {
		stderr := -1
		if cfg.Stderr != nil {
			stderr = int(cfg.Stderr.Fd())
		}
		env := append(append(os.Environ(), cfg.Env...), fmt.Sprintf("%s=%d,%d", socketsEnv, theirs[0], theirs[1]))
		h.helper, err = h.target.start(os.Args[0]+"-inside", env, stderr, theirs)
		err = h.target.explain(err)
	}
	if err != nil {
		for _, c := range ours {
			if c != nil {
				_ = c.Close()
			}
		}
		return fmt.Errorf("enter the namespaces of %s: %w", h.target.name, err)
	}
	h.calls, h.events = ours[0], ours[1]
	return nil
}

// socketPair returns one end as a connection, and the descriptor of the other.
func socketPair(name string) (*net.UnixConn, int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("make a pair of sockets: %w", err)
	}
	c, err := connOf(pair[0], name)
	if err != nil {
		_ = unix.Close(pair[1])
		return nil, -1, err
	}
	return c, pair[1], nil
}

// connOf makes a connection of a descriptor, which it takes over.
func connOf(fd int, name string) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("no unix socket"), c.Close())
	}
	return u, nil
}

// open has the helper open the TUN, and takes it.
func (h *Host) open(cfg Config) (*hostnet.TUN, error) {
	r := &request{Op: opOpen, Open: &openRequest{Name: cfg.Name, MTU: cfg.MTU, TakeOver: cfg.TakeOver, HostSource: cfg.HostSource}}
	fd, _, err := h.call(context.Background(), r)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "tun")
	tun, err := hostnet.AttachTUN(hostnet.TUNConfig{Log: cfg.Log, Name: cfg.Name, MTU: cfg.MTU, Receive: cfg.Receive}, f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return tun, nil
}

// call asks the helper, and returns its answer with the error in it. For requests that
// are answered with a descriptor it returns that.
func (h *Host) call(ctx context.Context, q *request) (fd int, r *response, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.left {
		return -1, nil, hostnet.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return -1, nil, err
	}
	// A call that was begun is waited for, whatever ctx says: its answer would be taken
	// for that of the next one.
	_ = h.calls.SetDeadline(time.Now().Add(callLimit))
	r = new(response)
	err = writeMessage(h.calls, q)
	if err == nil {
		err = readMessage(h.calls, r)
	}
	if err == nil && r.Error == "" && (q.Op == opOpen || q.Op == opSocket) {
		fd, err = receiveDescriptor(h.calls)
	}
	if err != nil {
		// Whatever comes next would be read as something else.
		_ = h.calls.Close()
		if errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, net.ErrClosed) {
			return -1, nil, ErrEnded
		}
		return -1, nil, fmt.Errorf("ask the helper in the namespace: %w", err)
	}
	return fd, r, r.err()
}

// receiveDescriptor takes a descriptor that comes with one byte.
func receiveDescriptor(c *net.UnixConn) (int, error) {
	b, rights := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	n, rn, _, _, err := c.ReadMsgUnix(b, rights)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:rn])
	if err != nil {
		return -1, fmt.Errorf("no descriptor came: %w", err)
	}
	if n != 1 || len(messages) != 1 {
		return -1, fmt.Errorf("no descriptor came: %d bytes, %d messages", n, len(messages))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.Join(fmt.Errorf("%d descriptors came", len(fds)), err)
	}
	return fds[0], nil
}

// Apply is [hostnet.Host.Apply], inside.
func (h *Host) Apply(ctx context.Context, s hostnet.State) ([]hostnet.Problem, error) {
	_, r, err := h.call(ctx, &request{Op: opApply, State: &s})
	if r == nil {
		return nil, fmt.Errorf("userns: apply: %w", err)
	}
	for i := range r.Problems {
		r.Problems[i].Mend = h.target.inside(r.Problems[i].Mend)
	}
	return r.Problems, err
}

// inside makes a command for the namespace one for outside. Modules are loaded outside.
func (t *target) inside(mend string) string {
	switch {
	case mend == "" || strings.HasPrefix(mend, "modprobe "):
		return mend
	case t.pid == 0:
		return "in that network namespace, " + mend
	}
	return fmt.Sprintf("nsenter -t %d -U -n --preserve-credentials sh -c '%s'", t.pid, mend)
}

// Prefixes is [hostnet.Prefixes], inside.
func (h *Host) Prefixes() ([]netip.Prefix, error) {
	_, r, err := h.call(context.Background(), &request{Op: opPrefixes})
	if err != nil {
		return nil, err
	}
	return r.Prefixes, nil
}

// Watch is [hostnet.Host.Watch], inside. It fails when the helper ends, and only waits
// for ctx after Leave. It may be called once.
func (h *Host) Watch(ctx context.Context, changed func()) error {
	switch _, _, err := h.call(ctx, &request{Op: opWatch}); {
	case err != nil && (ctx.Err() != nil || h.hasLeft()):
		<-ctx.Done()
		return nil
	case err != nil:
		return fmt.Errorf("userns: watch: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = h.events.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	b := make([]byte, 512)
	for {
		n, err := h.events.Read(b)
		switch {
		case err != nil && (ctx.Err() != nil || h.hasLeft()):
			<-ctx.Done()
			return nil
		case errors.Is(err, io.EOF):
			return ErrEnded
		case err != nil:
			return fmt.Errorf("userns: watch: %w", err)
		}
		if _, text, found := strings.Cut(string(b[:n]), string(eventFailed)); found {
			return errors.New(text)
		}
		changed()
	}
}

// Close removes everything of ours from the namespace, and ends the helper.
func (h *Host) Close() error {
	_, _, err := h.call(context.Background(), &request{Op: opClose})
	if errors.Is(err, hostnet.ErrClosed) {
		return nil
	}
	h.Leave()
	return err
}

// Leave ends the helper, and leaves everything as it is for the next agent. A second
// call does nothing.
func (h *Host) Leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.left {
		return
	}
	h.left = true
	_ = h.calls.Close()
	_ = h.events.Close()
	kill := time.AfterFunc(leaveLimit, func() { _ = h.helper.Kill() })
	_, _ = h.helper.Wait()
	kill.Stop()
	h.target.close()
}

func (h *Host) hasLeft() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.left
}

// String names the namespace, for status.
func (h *Host) String() string { return fmt.Sprintf("%s (%s)", h.target.name, h.target.id) }
