package userns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel lets a process into a user namespace only while it has a single thread, and
// the runtime of Go has made more before main begins. What os/exec does between fork and
// exec cannot be added to, and a program to do it, nsenter, is missing on small devices.
// So this file forks by itself, and the child makes system calls only.
//
// It is a plain fork, with memory of its own: whatever the child did, the agent would not
// notice, other than after vfork, whose child borrows the stack. The child has one
// thread, a copy of the memory in whatever state the other threads left it, and no
// scheduler. It must not allocate, lock, grow its stack, or write a pointer into the
// heap: all that it needs is made before, and is plain numbers. Signals are blocked until
// just before the exec, which takes the handlers away.
//
// Nothing of the runtime is linked to by name: only exported functions are used, and of
// these in the child RawSyscall and RawSyscall6, which are system calls and no more.

// forkArgs is what the child needs.
type forkArgs struct {
	user, net     uintptr // descriptors of the namespaces
	keep          [2]uintptr
	null, stderr  uintptr
	report        uintptr // descriptor of a pipe that exec closes
	path          uintptr // address of a C string
	argv, env     uintptr // of arrays of addresses of C strings
	capHead, caps uintptr // of what capset takes
	mask          uintptr // of the signal mask of the helper
	maskLen       uintptr // in bytes
	failed        [2]uint64
	failedAt      uintptr // of failed

	memory *forkMemory
}

// forkMemory is what the addresses in a forkArgs are of. It is never on a stack, which
// may move.
type forkMemory struct {
	path      *byte
	argv, env []*byte
	capHead   unix.CapUserHeader
	caps      [2]unix.CapUserData
	mask      unix.Sigset_t
}

// secureNoRoot is SECBIT_NOROOT, locked (linux/securebits.h): root has no capability just
// for being root.
const secureNoRoot = 1<<0 | 1<<1

// Steps of the child, for errors.
const (
	stepUser = iota + 1
	stepNet
	stepCaps
	stepFiles
	stepExec
)

var stepNames = [...]string{
	stepUser: "enter the user namespace", stepNet: "enter the network namespace", stepCaps: "set the capabilities",
	stepFiles: "hand descriptors on", stepExec: "start this program",
}

// newForkArgs prepares what the child needs to become this program, with a name and an
// environment.
//
//go:noinline
func newForkArgs(name string, env []string) (*forkArgs, error) {
	m := &forkMemory{capHead: unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}}
	m.caps[0] = unix.CapUserData{Effective: 1 << unix.CAP_NET_ADMIN, Permitted: 1 << unix.CAP_NET_ADMIN, Inheritable: 1 << unix.CAP_NET_ADMIN}
	var err error
	if m.path, err = syscall.BytePtrFromString("/proc/self/exe"); err != nil {
		return nil, err
	}
	if m.argv, err = syscall.SlicePtrFromStrings([]string{name}); err != nil {
		return nil, err
	}
	if m.env, err = syscall.SlicePtrFromStrings(env); err != nil {
		return nil, err
	}
	a := &forkArgs{memory: m, maskLen: 8}
	if strings.HasPrefix(runtime.GOARCH, "mips") {
		a.maskLen = 16 // it knows more signals
	}
	address := func(p unsafe.Pointer) uintptr { return uintptr(p) }
	a.path, a.argv, a.env = address(unsafe.Pointer(m.path)), address(unsafe.Pointer(&m.argv[0])), address(unsafe.Pointer(&m.env[0]))
	a.capHead, a.caps = address(unsafe.Pointer(&m.capHead)), address(unsafe.Pointer(&m.caps))
	a.mask, a.failedAt = address(unsafe.Pointer(&m.mask)), address(unsafe.Pointer(&a.failed))
	return a, nil
}

// start makes the child and waits until it is this program again, or has failed. stderr
// and keep are descriptors that it gets, keep under the same numbers.
func (t *target) start(name string, env []string, stderr int, keep [2]int) (*os.Process, error) {
	a, err := newForkArgs(name, env)
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	var report [2]int
	if err := unix.Pipe2(report[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	failed := os.NewFile(uintptr(report[0]), "report")
	defer failed.Close()
	a.user, a.net, a.null, a.stderr = t.user.Fd(), t.net.Fd(), null.Fd(), uintptr(stderr)
	a.keep, a.report = [2]uintptr{uintptr(keep[0]), uintptr(keep[1])}, uintptr(report[1])
	if stderr < 0 {
		a.stderr = a.null
	}
	pid, err := a.forkQuietly()
	_ = unix.Close(report[1])
	if err != nil {
		return nil, fmt.Errorf("fork: %w", err)
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return nil, err
	}
	what := make([]byte, 16)
	if _, err := io.ReadFull(failed, what); errors.Is(err, io.EOF) {
		return p, nil
	}
	_, _ = p.Wait()
	step, errno := binary.NativeEndian.Uint64(what), syscall.Errno(binary.NativeEndian.Uint64(what[8:]))
	if step == 0 || step >= uint64(len(stepNames)) {
		return nil, errors.New("the helper ended at once")
	}
	return nil, fmt.Errorf("%s: %w", stepNames[step], errno)
}

// forkQuietly forks while no signal can reach this thread, and no descriptor is between
// being made and being marked to be closed by exec.
func (a *forkArgs) forkQuietly() (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &a.memory.mask); err != nil {
		return 0, err
	}
	pid, errno := a.fork()
	err := unix.PthreadSigmask(unix.SIG_SETMASK, &a.memory.mask, nil)
	runtime.KeepAlive(a)
	if errno != 0 {
		return 0, errno
	}
	return int(pid), err
}

// fork makes the child. In the parent it returns its number; in the child it does not
// return.
//
//go:norace
//go:nosplit
//go:noinline
func (a *forkArgs) fork() (pid uintptr, errno syscall.Errno) {
	// VFORK without VM: the parent waits for the exec, and so copies no page meanwhile.
	pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD)|unix.CLONE_VFORK, 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	step := uint64(stepUser)
	if _, _, errno = syscall.RawSyscall(unix.SYS_SETNS, a.user, unix.CLONE_NEWUSER, 0); errno != 0 {
		goto failed
	}
	step = stepNet
	if _, _, errno = syscall.RawSyscall(unix.SYS_SETNS, a.net, unix.CLONE_NEWNET, 0); errno != 0 {
		goto failed
	}
	// All capabilities came with the user namespace. Only CAP_NET_ADMIN gets over the
	// exec: as an ambient one, and no others because of being root in there.
	step = stepCaps
	if _, _, errno = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, secureNoRoot, 0, 0, 0, 0); errno != 0 {
		goto failed
	}
	if _, _, errno = syscall.RawSyscall(unix.SYS_CAPSET, a.capHead, a.caps, 0); errno != 0 {
		goto failed
	}
	if _, _, errno = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_NET_ADMIN, 0, 0, 0); errno != 0 {
		goto failed
	}
	step = stepFiles
	for i := 0; i < len(a.keep); i++ {
		if _, _, errno = syscall.RawSyscall(unix.SYS_FCNTL, a.keep[i], unix.F_SETFD, 0); errno != 0 {
			goto failed
		}
	}
	for fd := uintptr(0); fd < 2; fd++ {
		if _, _, errno = syscall.RawSyscall(unix.SYS_DUP3, a.null, fd, 0); errno != 0 {
			goto failed
		}
	}
	if _, _, errno = syscall.RawSyscall(unix.SYS_DUP3, a.stderr, 2, 0); errno != 0 && errno != syscall.EINVAL {
		goto failed // EINVAL: it is there already
	}
	step = stepExec
	if _, _, errno = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, a.mask, 0, a.maskLen, 0, 0); errno != 0 {
		goto failed
	}
	_, _, errno = syscall.RawSyscall(unix.SYS_EXECVE, a.path, a.argv, a.env)

failed:
	a.failed[0], a.failed[1] = step, uint64(errno)
	_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, a.report, a.failedAt, 16)
	for {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 127, 0, 0)
	}
}
