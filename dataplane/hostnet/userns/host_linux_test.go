package userns

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"corax/dataplane"
	"corax/dataplane/hostnet"
)

// workloadEnv makes this program wait for the end of its input.
const workloadEnv = "CORAX_USERNS_WORKLOAD"

func TestMain(m *testing.M) {
	switch {
	case IsHelper():
		if err := Serve(slog.New(slog.DiscardHandler)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case os.Getenv(workloadEnv) != "":
		fmt.Println("here")
		_, _ = io.Copy(io.Discard, os.Stdin)
	default:
		os.Exit(m.Run())
	}
}

func lacking(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// newWorkload makes a process in a user and network namespace of its own. It lives
// until end is called.
func newWorkload(t *testing.T) (pid int, end func()) {
	t.Helper()
	if fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		lacking(t, "no TUN here: "+err.Error())
	} else {
		_ = unix.Close(fd)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), workloadEnv+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		lacking(t, "no user namespace here: "+err.Error())
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	t.Cleanup(end)
	return cmd.Process.Pid, end
}

// config is that of a host of the namespace of a process.
func config(pid int) Config {
	return Config{
		Namespace: fmt.Sprint(pid), Stderr: os.Stderr, Name: "corax9", MTU: 1400, Receive: nobody{},
		Env: []string{"GORACE=atexit_sleep_ms=0"}, // a helper with the race detector would take a second to end
	}
}

func mustEnter(t *testing.T, cfg Config) (*Host, *hostnet.TUN) {
	t.Helper()
	h, tun, err := Enter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.Leave()
		_ = tun.Close()
	})
	return h, tun
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func links(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func routes(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/fib_trie", pid))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func state() hostnet.State {
	p := netip.MustParsePrefix
	return hostnet.State{
		Subnets: []netip.Prefix{p("10.8.0.0/24")},
		Routes:  []dataplane.HostRoute{{Prefix: p("10.9.0.0/24"), MTU: 1300}}, MTU: 1400,
	}
}

func TestHost(t *testing.T) {
	pid, _ := newWorkload(t)
	h, tun := mustEnter(t, config(pid))
	if !strings.Contains(links(t, pid), "corax9:") {
		t.Fatal("no TUN in the namespace: ", links(t, pid))
	}
	if own, err := os.ReadFile("/proc/self/net/dev"); err != nil || strings.Contains(string(own), "corax9:") {
		t.Fatal("the TUN is outside", err)
	}
	problems, err := h.Apply(t.Context(), state())
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(problems, func(p hostnet.Problem) bool { return p.Name == "ip_forward" }); i < 0 {
		t.Errorf("forwarding is off in a new namespace, and nothing says so: %v", problems)
	} else if want := fmt.Sprintf("nsenter -t %d -U -n ", pid); !strings.HasPrefix(problems[i].Mend, want) {
		t.Errorf("mend it with %q", problems[i].Mend)
	}
	if !strings.Contains(routes(t, pid), "10.9.0.0\n") {
		t.Error("no route in the namespace: ", routes(t, pid))
	}
	if ps, err := h.Prefixes(); err != nil || len(ps) != 0 {
		t.Errorf("prefixes %v, %v", ps, err)
	}
	if want := fmt.Sprintf("process %d (net:[", pid); !strings.HasPrefix(h.String(), want) {
		t.Errorf("it is called %s", h)
	}

	// Another agent finds what this one leaves.
	if _, _, err := Enter(config(pid)); err == nil || !strings.Contains(err.Error(), "another agent is attached") {
		t.Errorf("twice: %v", err)
	}
	h.Leave()
	_ = tun.Close()
	if !strings.Contains(routes(t, pid), "10.9.0.0\n") || !strings.Contains(links(t, pid), "corax9:") {
		t.Error("the TUN or its routes went with the agent")
	}
	if _, err := h.Apply(t.Context(), state()); !errors.Is(err, hostnet.ErrClosed) {
		t.Errorf("after Leave: %v", err)
	}
	h, tun = mustEnter(t, config(pid))
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if err := tun.Remove(); err != nil {
		t.Error(err)
	}
	if err := h.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if strings.Contains(routes(t, pid), "10.9.0.0\n") || strings.Contains(links(t, pid), "corax9:") {
		t.Error("something is left: ", routes(t, pid), links(t, pid))
	}
}

// TestWatch: what changes inside is told outside, and so is the end of the helper.
func TestWatch(t *testing.T) {
	pid, _ := newWorkload(t)
	h, _ := mustEnter(t, config(pid))
	changed, ended := make(chan struct{}, 100), make(chan error, 1)
	go func() { ended <- h.Watch(t.Context(), func() { changed <- struct{}{} }) }()
	ctx := within(t, 20*time.Second)
	// Its own writes are changes, too; the first may come before anybody watches.
	for told := false; !told; {
		s := state()
		if _, err := h.Apply(ctx, s); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Apply(ctx, hostnet.State{}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
			told = true
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("no event came")
		}
	}
	if err := h.helper.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, ErrEnded) {
		t.Errorf("watch: %v", err)
	}
	if _, err := h.Apply(ctx, state()); !errors.Is(err, ErrEnded) {
		t.Errorf("apply: %v", err)
	}
}

func TestWatchEnds(t *testing.T) {
	pid, _ := newWorkload(t)
	for _, tt := range []struct {
		name string
		end  func(*Host, context.CancelFunc)
	}{
		{"done", func(_ *Host, cancel context.CancelFunc) { cancel() }},
		{"left and done", func(h *Host, cancel context.CancelFunc) { h.Leave(); cancel() }},
	} {
		h, tun := mustEnter(t, config(pid))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- h.Watch(ctx, func() {}) }()
		if _, err := h.Prefixes(); err != nil { // the helper answers
			t.Fatal(err)
		}
		tt.end(h, cancel)
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		cancel()
		h.Leave()
		_ = tun.Close()
	}
}

func TestWaitEmpty(t *testing.T) {
	pid, end := newWorkload(t)
	h, tun := mustEnter(t, config(pid))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if h.WaitEmpty(ctx) {
		t.Error("it is empty although somebody lives in it")
	}
	end()
	if !h.WaitEmpty(within(t, 20*time.Second)) {
		t.Error("it is not empty although nobody lives in it")
	}
	h.Leave()
	_ = tun.Close()
	if _, _, err := Enter(config(pid)); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("there is no process %d", pid)) {
		t.Errorf("afterwards: %v", err)
	}
}

// TestSockets: sockets of the namespace have its network, where nothing is up but the
// TUN.
func TestSockets(t *testing.T) {
	pid, _ := newWorkload(t)
	h, _ := mustEnter(t, config(pid))
	if _, err := h.Apply(t.Context(), state()); err != nil {
		t.Fatal(err)
	}
	ctx := within(t, 20*time.Second)
	nowhere := netip.MustParseAddrPort("192.0.2.1:9")
	for _, dial := range []func(context.Context, netip.AddrPort) (io.Closer, error){
		func(ctx context.Context, to netip.AddrPort) (io.Closer, error) { return h.DialTCP(ctx, to) },
		func(ctx context.Context, to netip.AddrPort) (io.Closer, error) { return h.DialUDP(ctx, to) },
	} {
		if _, err := dial(ctx, nowhere); !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("without a route: %v", err)
		}
	}
	c, err := h.ListenUDP(false)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/udp", pid)); err != nil || strings.Count(string(b), "\n") != 2 {
		t.Errorf("the socket is not in the namespace: %s%v", b, err)
	}
	if _, err := h.DialPing(ctx, nowhere.Addr()); !errors.Is(err, unix.EACCES) {
		t.Errorf("a new namespace has no ICMP sockets for users: %v", err)
	}
	// Nobody answers on the other side of the TUN.
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	for range 2 { // while it dials, and before
		if _, err := h.DialTCP(short, netip.MustParseAddrPort("10.9.0.1:9")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("into the TUN: %v", err)
		}
	}
	if _, err := h.Prefixes(); err != nil {
		t.Errorf("the helper is not asked any more: %v", err)
	}
}

func TestWrongNamespaces(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, namespace, want string }{
		{"no process", "4194303", "there is no process 4194303"},
		{"no process, by path", "/proc/4194303/ns/net", "there is no process 4194303"},
		{"the agent's own", fmt.Sprint(os.Getpid()), "belongs to the agent's own user namespace"},
		{"a file", "/proc/self/status", "is not a network namespace"},
		{"another kind of namespace", "/proc/self/ns/user", "is not a network namespace"},
		{"a FIFO", fifo, "is not a network namespace"},
		{"a directory", dir, "is not a network namespace"},
		{"nothing", filepath.Join(dir, "none"), "no such file"},
	} {
		if _, err := findTarget(tt.namespace); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestProcessPath(t *testing.T) {
	for _, tt := range []struct {
		path string
		pid  int
	}{
		{"/proc/12/ns/net", 12},
		{"/proc//12/ns/./net", 12},
		{"/proc/self/ns/net", 0},
		{"/proc/0/ns/net", 0},
		{"/proc/12/ns/user", 0},
		{"/run/netns/12", 0},
		{"proc/12/ns/net", 0},
	} {
		pid, ok := processPath(tt.path)
		if ok != (tt.pid != 0) || ok && pid != tt.pid {
			t.Errorf("%s: %d, %t", tt.path, pid, ok)
		}
	}
}

// TestForkFails: each step that fails is named, and the child is gone. The threads of
// the parent do what threads do meanwhile.
func TestForkFails(t *testing.T) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = make([]byte, 1<<16)
					runtime.Gosched()
				}
			}
		})
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	w := &target{user: null, net: null}
	for range 20 {
		if _, err := w.start("x", nil, -1, [2]int{0, 1}); !errors.Is(err, unix.EINVAL) || !strings.HasPrefix(err.Error(), "enter the user namespace") {
			t.Fatal(err)
		}
	}
	if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("a child is left: %v", err)
	}
}

// TestForkLateSteps: with a real user namespace, the steps after it.
func TestForkLateSteps(t *testing.T) {
	pid, _ := newWorkload(t)
	w, err := findTarget(fmt.Sprint(pid))
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, tt := range []struct {
		name   string
		target *target
		keep   [2]int
		want   string
		is     error
	}{
		{"network", &target{user: w.user, net: null}, [2]int{0, 1}, "enter the network namespace", unix.EINVAL},
		{"descriptors", w, [2]int{0, 1 << 20}, "hand descriptors on", unix.EBADF},
	} {
		if _, err := tt.target.start("x", nil, -1, tt.keep); !errors.Is(err, tt.is) || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestHelperNeedsOpen: a helper answers nothing before it is told what to open, and ends
// with a request that nobody makes.
func TestHelperNeedsOpen(t *testing.T) {
	ours, theirs, err := socketPair("calls")
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	other, err := connOf(theirs, "helper")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	done := make(chan error, 1)
	go func() { done <- (&helper{log: slog.New(slog.DiscardHandler), calls: other}).serve() }()
	for _, op := range []string{opWatch, opPrefixes, opClose} {
		var r response
		if err := errors.Join(writeMessage(ours, request{Op: op}), readMessage(ours, &r)); err != nil || r.Error != "nothing is open" {
			t.Errorf("%s: %q, %v", op, r.Error, err)
		}
	}
	if err := writeMessage(ours, request{Op: "exec"}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "unknown request") {
		t.Error(err)
	}
}
