//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// insideEnv marks a process that Reexec has put into a user namespace.
const insideEnv = "CORAX_LAB_INSIDE"

// Main is the body of TestMain in a package whose tests use a lab: it runs the
// tests, without root in a user namespace. Where the machine allows no lab it
// says so in one line, and the tests that ask for one are skipped (with CI set:
// fail). The result is for os.Exit.
func Main(m *testing.M) int {
	code, done, err := Reexec()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if done {
		return code
	}
	return m.Run()
}

// Reexec makes sure that this process may create network namespaces. When it
// may, Reexec returns at once with done false. Otherwise it runs the program
// again in a new user namespace and returns its exit code with done true. The
// error says, in one line, what the machine lacks for either way.
//
// Call it first thing in main. The second run dies with the first one, and gets
// its SIGINT, SIGTERM and SIGQUIT. A third kind of run becomes a deprived agent.
func Reexec() (code int, done bool, err error) {
	return reexec(Usable)
}

// ReexecWithoutTUN is Reexec for a program whose labs need no TUN.
func ReexecWithoutTUN() (code int, done bool, err error) {
	return reexec(spacesUsable)
}

func reexec(usable func() error) (code int, done bool, err error) {
	if path := os.Getenv(deprivedEnv); path != "" {
		return 1, true, becomeDeprived(path)
	}
	reason := usable()
	if reason == nil {
		return 0, false, nil
	}
	if os.Getenv(insideEnv) != "" || !errors.Is(reason, unix.EPERM) {
		return 0, false, reason
	}
	return runInside()
}

// Usable reports whether this process can build a lab here and now: nil, or one
// line that says what is missing.
func Usable() error {
	if err := HasTUN(); err != nil {
		return err // root helps with both; a user namespace not with this
	}
	return spacesUsable()
}

// spacesUsable is Usable without a TUN.
func spacesUsable() error {
	result := make(chan error, 1)
	onOwnThread(func() { result <- unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS) })
	if err := <-result; err != nil {
		return fmt.Errorf("lab: network namespaces need root or user namespaces: %w", err)
	}
	return nil
}

// HasTUN reports whether this process may open a TUN: nil, or one line that says
// what is missing.
func HasTUN() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("lab: cannot open /dev/net/tun (%w): run as root, or let this user read and write it", err)
	}
	return unix.Close(fd)
}

func runInside() (int, bool, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, false, fmt.Errorf("lab: %w", err)
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
		Setpgid:     true, // so that a Ctrl-C arrives once, through us
	}
	// Pdeathsig fires when the starting thread ends, so it must be this one.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	if err := cmd.Start(); err != nil {
		signal.Stop(signals)
		return 0, false, fmt.Errorf("lab: user namespaces are not allowed here%s: %w", userNamespaceHint(), err)
	}
	stopped := make(chan struct{})
	go forward(signals, cmd.Process, stopped)
	err = cmd.Wait()
	signal.Stop(signals)
	close(stopped)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(exit.ExitCode(), 1), true, nil
	}
	if err != nil {
		return 1, true, fmt.Errorf("lab: %w", err)
	}
	return 0, true, nil
}

func forward(signals <-chan os.Signal, p *os.Process, stopped <-chan struct{}) {
	for {
		select {
		case s := <-signals:
			_ = p.Signal(s)
		case <-stopped:
			return
		}
	}
}

// userNamespaceHint names the usual switches that forbid user namespaces.
func userNamespaceHint() string {
	for _, knob := range []struct{ path, off, name string }{
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"},
		{"/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=10000"},
	} {
		b, err := os.ReadFile(knob.path)
		if err == nil && strings.TrimSpace(string(b)) == knob.off {
			return " (run as root, or sysctl -w " + knob.name + ")"
		}
	}
	return " (run as root)"
}
