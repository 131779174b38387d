package userns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// target is a network namespace and the user namespace that it belongs to.
type target struct {
	name      string // as the operator calls it
	path      string // of the file that stands for it
	pid       int    // zero: a file was named
	user, net *os.File
	id        nsID // of the network namespace
}

// nsID tells namespaces from one another.
type nsID struct{ dev, ino uint64 }

// String returns the name that the links in /proc have.
func (n nsID) String() string { return fmt.Sprintf("net:[%d]", n.ino) }

// findTarget opens the namespaces that a process number or a path names.
func findTarget(namespace string) (*target, error) {
	if _, err := os.Stat("/proc/self/ns/user"); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat("/proc/self/ns/net"); err != nil {
			return nil, errors.New("there is no /proc/self/ns: /proc is not mounted, or the kernel has no namespaces")
		}
		return nil, errors.New("this kernel has no user namespaces (CONFIG_USER_NS)")
	}
	t := &target{name: namespace, path: namespace}
	if pid, err := strconv.Atoi(namespace); err == nil {
		t.name, t.path, t.pid = "process "+namespace, fmt.Sprintf("/proc/%d/ns/net", pid), pid
	} else if pid, ok := processPath(namespace); ok {
		t.pid = pid
	}
	if err := t.open(); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// processPath returns the process of a path such as /proc/1/ns/net, which stands for the
// namespace as long as the process lives.
func processPath(path string) (int, bool) {
	dir, ok := strings.CutSuffix(filepath.Clean(path), "/ns/net")
	dir, ok2 := strings.CutPrefix(dir, "/proc/")
	pid, err := strconv.Atoi(dir)
	return pid, ok && ok2 && err == nil && pid > 0
}

func (t *target) open() error {
	var err error
	// Not os.Open: that of a FIFO waits for a writer.
	if t.net, err = openFile(t.path); err != nil {
		switch {
		case t.pid != 0 && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)):
			return fmt.Errorf("there is no process %d", t.pid)
		case t.pid != 0 && errors.Is(err, fs.ErrPermission):
			return fmt.Errorf("process %d belongs to somebody else: %w", t.pid, err)
		}
		return err
	}
	var fsys unix.Statfs_t
	kind, err := 0, unix.Fstatfs(int(t.net.Fd()), &fsys)
	if err == nil && fsys.Type == unix.NSFS_MAGIC {
		kind, err = unix.IoctlRetInt(int(t.net.Fd()), unix.NS_GET_NSTYPE)
	}
	if err != nil || kind != unix.CLONE_NEWNET {
		return fmt.Errorf("%s is not a network namespace", t.path)
	}
	if t.id, err = identify(t.net); err != nil {
		return err
	}
	// That of the process may be a child of this one, without rights in the network.
	user, err := unix.IoctlRetInt(int(t.net.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("the network namespace of %s does not belong to a child of the agent's user namespace", t.name)
		}
		return fmt.Errorf("find the user namespace of %s: %w", t.name, err)
	}
	t.user = os.NewFile(uintptr(user), "user namespace")
	unix.CloseOnExec(user)
	return t.checkChild()
}

// checkChild refuses the user namespace of this process itself.
func (t *target) checkChild() error {
	own, err := os.Open("/proc/self/ns/user")
	if err != nil {
		return err
	}
	defer own.Close()
	a, err := identify(own)
	b, err2 := identify(t.user)
	if err = errors.Join(err, err2); err != nil {
		return err
	}
	if a == b {
		return fmt.Errorf("the network namespace of %s belongs to the agent's own user namespace, not to a child of it: run the agent in it, with --datapath tun", t.name)
	}
	return nil
}

// explain says why the namespaces cannot be entered.
func (t *target) explain(err error) error {
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	if uid, e := ownerOf(t.user); e == nil && uid != os.Geteuid() && os.Geteuid() != 0 {
		return fmt.Errorf("the user namespace of %s belongs to user %d, and the agent is user %d: %w", t.name, uid, os.Geteuid(), err)
	}
	if b, e := os.ReadFile("/proc/self/status"); e == nil && strings.Contains(string(b), "\nSeccomp:\t2\n") {
		return fmt.Errorf("a seccomp filter is in force, as in containers, which has to allow setns: %w", err)
	}
	return err
}

func (t *target) close() {
	for _, f := range []*os.File{t.user, t.net} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// ownerOf returns the user who owns a user namespace.
func ownerOf(user *os.File) (int, error) {
	n, err := unix.IoctlGetUint32(int(user.Fd()), unix.NS_GET_OWNER_UID)
	return int(n), err
}

func openFile(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func identify(f *os.File) (nsID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nsID{}, fmt.Errorf("look at %s: %w", f.Name(), err)
	}
	return nsID{uint64(st.Dev), st.Ino}, nil //nolint:unconvert // it has 32 bits on MIPS
}
