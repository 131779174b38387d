//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Nobody is the user and the group of a deprived agent.
const Nobody = 65534

// deprivedEnv makes this program, started again, give everything away and become
// the program that it names.
const deprivedEnv = "CORAX_LAB_DEPRIVED"

// depriveSetnsEnv, when set, makes the filter let setns through.
const depriveSetnsEnv = "CORAX_LAB_DEPRIVED_SETNS"

// DepriveToUserns is Deprive, but the agent may open a TUN and the seccomp filter lets
// setns through: what an agent needs that has its TUN in a user namespace that it owns.
func (a *Agent) DepriveToUserns() error {
	if err := a.Deprive(); err != nil {
		return err
	}
	a.setns = true
	mknod := func() error {
		if err := unix.Mknod("/dev/net/tun", unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200))); err != nil {
			return err
		}
		return os.Chmod("/dev/net/tun", 0o666)
	}
	if err := a.Host.Do(mknod); err != nil {
		return fmt.Errorf("lab: make /dev/net/tun of %s: %w", a.Host.Name, err)
	}
	return nil
}

// Deprive takes from the agent, from its next start on, what a restricted container
// takes: it is user 65534, its capability sets are empty, no_new_privs is set, a
// seccomp filter like the one that container engines set by default refuses what
// they refuse, and its host has no /dev/net/tun. In a user namespace that does not
// have that user the agent stays the user that it is, which is none of the machine's
// either; DeprivedUser says so.
func (a *Agent) Deprive() error {
	if err := os.Chmod(a.Host.lab.dir, 0o755); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if _, err := os.Stat("/dev/net"); err == nil {
		hide := func() error { return unix.Mount("tmpfs", "/dev/net", "tmpfs", 0, "") }
		if err := a.Host.Do(hide); err != nil {
			return fmt.Errorf("lab: hide /dev/net of %s: %w", a.Host.Name, err)
		}
	}
	a.deprived, a.setns = true, false
	return nil
}

// Deprived reports whether Deprive was called.
func (a *Agent) Deprived() bool { return a.deprived }

// DeprivedUser is the user of deprived agents: Nobody, or the one that this process
// is where there is no other.
func DeprivedUser() int {
	if hasUser(Nobody) {
		return Nobody
	}
	return os.Getuid()
}

// hasUser reports whether the user namespace of this process knows a user.
func hasUser(id uint) bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		var first, outside, n uint
		if _, err := fmt.Sscan(line, &first, &outside, &n); err == nil && first <= id && id-first < n {
			return true
		}
	}
	return false
}

// AllowPing lets programs of the host's users, all of them, have ICMP sockets.
func (h *Host) AllowPing() {
	all := "0 2147483647"
	if !hasUser(Nobody) {
		all = "0 0" // of others the namespace knows nothing
	}
	h.Sysctl("net/ipv4/ping_group_range", all)
}

// Rotate runs `corax key --rotate` as whoever the agent is, and returns the next public
// key as base64.
func (a *Agent) Rotate(ctx context.Context) (string, error) {
	out, err := a.Host.Run(ctx, a.cfg.Binary, "key", "--rotate", "--state-dir", a.StateDir())
	if err == nil && a.deprived {
		err = a.giveAway()
	}
	return strings.TrimSpace(string(out)), err
}

// User is the user whose files the agent can read: DeprivedUser, or that of this
// process.
func (a *Agent) User() int {
	if a.deprived {
		return DeprivedUser()
	}
	return os.Getuid()
}

// giveAway makes the files of the agent those of its user.
func (a *Agent) giveAway() error {
	user := DeprivedUser()
	if err := os.MkdirAll(a.StateDir(), 0o700); err != nil {
		return err
	}
	if err := os.Chown(a.Host.dir, user, user); err != nil {
		return err
	}
	return filepath.WalkDir(a.StateDir(), func(path string, _ fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return os.Lchown(path, user, user)
	})
}

// becomeDeprived gives everything away, and becomes the program of a path with the
// arguments of this one. It returns only when that fails.
func becomeDeprived(path string) error {
	// What is below holds for this thread, and the new program is what it becomes.
	runtime.LockOSThread()
	if err := os.Unsetenv(deprivedEnv); err != nil {
		return err
	}
	for c := uintptr(0); c < 64; c++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); errors.Is(err, unix.EINVAL) {
			break // there is no such capability
		} else if err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if hasUser(Nobody) {
		if err := syscall.Setgroups(nil); err != nil {
			return fmt.Errorf("setgroups: %w", err)
		}
		if err := syscall.Setresgid(Nobody, Nobody, Nobody); err != nil {
			return fmt.Errorf("setresgid: %w", err)
		}
		if err := syscall.Setresuid(Nobody, Nobody, Nobody); err != nil {
			return fmt.Errorf("setresuid: %w", err)
		}
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&head, &none[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	// Another user is another process in the kernel's eyes: it would outlive us.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("parent death signal: %w", err)
	}
	var allowed []uint32
	if os.Getenv(depriveSetnsEnv) != "" {
		allowed = []uint32{unix.SYS_SETNS}
		if err := os.Unsetenv(depriveSetnsEnv); err != nil {
			return err
		}
	}
	if err := filterSyscalls(allowed...); err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	return fmt.Errorf("execute %s: %w", path, syscall.Exec(path, append([]string{path}, os.Args[1:]...), os.Environ()))
}
