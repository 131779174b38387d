package userns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"corax/dataplane"
	"corax/dataplane/hostnet"
)

// socketsEnv is the environment variable with the descriptors of the helper's sockets.
const socketsEnv = "CORAX_USERNS_SOCKETS"

// Events are bytes; what follows eventFailed are words.
const (
	eventChanged = "c"
	eventFailed  = "!"
)

// helper serves one agent.
type helper struct {
	log    *slog.Logger
	calls  *net.UnixConn
	events *net.UnixConn

	host *hostnet.Host // nil until opened
	wg   sync.WaitGroup
}

// IsHelper reports whether this process was started as a helper, so that it must call
// [Serve] and nothing else.
func IsHelper() bool { return os.Getenv(socketsEnv) != "" }

// Serve is the whole work of a helper: it returns when the agent has gone.
func Serve(log *slog.Logger) error {
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(unsafe.StringData("corax-inside\x00"))), 0, 0, 0) // else "exe"
	// A signal for all processes of a terminal or of a unit is the agent's to act on:
	// it needs this one to clean up.
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	h, err := newHelper(log)
	if err == nil {
		err = h.serve()
	}
	if err != nil {
		return fmt.Errorf("userns: helper: %w", err)
	}
	return nil
}

func newHelper(log *slog.Logger) (*helper, error) {
	first, second, _ := strings.Cut(os.Getenv(socketsEnv), ",")
	calls, err := strconv.Atoi(first)
	events, err2 := strconv.Atoi(second)
	if err := errors.Join(err, err2); err != nil {
		return nil, fmt.Errorf("%s: %w", socketsEnv, err)
	}
	if err := os.Unsetenv(socketsEnv); err != nil {
		return nil, err
	}
	h := &helper{log: log}
	if h.calls, err = connOf(calls, "calls"); err != nil {
		return nil, err
	}
	if h.events, err = connOf(events, "events"); err != nil {
		return nil, err
	}
	return h, nil
}

// serve answers until the agent has gone.
func (h *helper) serve() error {
	ctx, stop := context.WithCancel(context.Background())
	defer h.wg.Wait()
	defer stop()
	for {
		q, err := readRequest(h.calls)
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := h.answer(ctx, q); err != nil {
			if errors.Is(err, unix.EPIPE) {
				return nil
			}
			return err
		}
	}
}

// answer does what is asked for, and says what came of it.
func (h *helper) answer(ctx context.Context, q *request) error {
	var r response
	fd := -1
	switch {
	case h.host == nil && q.Op != opOpen:
		r.fail(errors.New("nothing is open"))
	case q.Op == opOpen:
		tun, err := h.open(q.Open)
		r.fail(err)
		if err == nil {
			defer tun.Close() // the agent has it
			return h.answerTUN(&r, tun)
		}
	case q.Op == opApply:
		problems, err := h.host.Apply(ctx, *q.State)
		r.Problems = problems
		r.fail(err)
	case q.Op == opWatch:
		h.wg.Go(func() { h.watch(ctx) })
	case q.Op == opPrefixes:
		var err error
		r.Prefixes, err = hostnet.Prefixes(h.host.Name())
		r.fail(err)
	case q.Op == opSocket:
		var err error
		fd, err = openSocket(q.Socket)
		r.fail(err)
	case q.Op == opClose:
		r.fail(h.host.Close())
	}
	if fd >= 0 {
		defer unix.Close(fd)
	}
	if err := writeMessage(h.calls, &r); err != nil || fd < 0 {
		return err
	}
	return sendDescriptor(h.calls, fd)
}

// open makes what a Config says.
func (h *helper) open(o *openRequest) (*hostnet.TUN, error) {
	if h.host != nil {
		return nil, errors.New("it is open already")
	}
	host, err := hostnet.New(hostnet.Config{Log: h.log, Name: o.Name, TakeOver: o.TakeOver, HostSource: o.HostSource})
	if err != nil {
		return nil, err
	}
	tun, err := hostnet.OpenTUN(hostnet.TUNConfig{Log: h.log, Name: o.Name, MTU: o.MTU, Receive: nobody{}})
	if err != nil {
		return nil, err
	}
	h.host = host
	return tun, nil
}

// answerTUN hands the TUN to the agent.
func (h *helper) answerTUN(r *response, tun *hostnet.TUN) error {
	err := writeMessage(h.calls, r)
	if err != nil {
		return err
	}
	if e := tun.Control(func(fd uintptr) { err = sendDescriptor(h.calls, int(fd)) }); e != nil {
		return e
	}
	return err
}

// watch tells the agent of changes. What does not fit into the socket has been told.
func (h *helper) watch(ctx context.Context) {
	err := h.host.Watch(ctx, func() { _, _ = h.events.Write([]byte(eventChanged)) })
	if err != nil {
		_, _ = h.events.Write([]byte(eventFailed + err.Error()))
	}
}

// nobody takes packets that are never read.
type nobody struct{}

// Send implements [dataplane.Sender].
func (nobody) Send([]dataplane.Packet) {}

// sendDescriptor sends a descriptor with one byte.
func sendDescriptor(c *net.UnixConn, fd int) error {
	_, _, err := c.WriteMsgUnix([]byte{1}, syscall.UnixRights(fd), nil)
	return err
}

// openSocket makes a socket of this network namespace.
func openSocket(q *socketRequest) (int, error) {
	domain, kind, protocol := unix.AF_INET, unix.SOCK_DGRAM, 0
	if q.V6 {
		domain = unix.AF_INET6
	}
	switch {
	case q.Kind == kindTCP:
		kind = unix.SOCK_STREAM
	case q.Kind == kindPing && q.V6:
		protocol = unix.IPPROTO_ICMPV6
	case q.Kind == kindPing:
		protocol = unix.IPPROTO_ICMP
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return -1, fmt.Errorf("make a socket: %w", err)
	}
	return fd, nil
}
