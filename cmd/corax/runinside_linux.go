package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"corax/dataplane"
	"corax/dataplane/hostnet"
)

// lateSender is given its Sender before anything runs.
type lateSender struct{ dataplane.Sender }

// insideEnv makes this program, started again in new namespaces, set these up and
// become the command; its value is the descriptor of the socket to the one outside.
const insideEnv = "CORAX_RUN_INSIDE"

// inside is a command in namespaces of its own.
type inside struct {
	cmd  *exec.Cmd
	sock *os.File // to what the command will be
	tun  *os.File

	killed bool // by us
}

// startInside makes the namespaces, in which the command waits for begin.
func startInside(path string, args []string) (*inside, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "run"), os.NewFile(uintptr(pair[1]), "inside")
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{path}, args...) // the path, and what the command sees as its own
	cmd.Env = append(os.Environ(), insideEnv+"=3")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}},
		// Over the exec of this program; the command has none of them.
		AmbientCaps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN},
	}
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		_ = ours.Close()
		if p, ok := errors.AsType[*fs.PathError](err); ok {
			err = p.Err // it names this program, which nobody typed
		}
		return nil, explainNamespace(fmt.Errorf("make a user and network namespace: %w", err))
	}
	in := &inside{cmd: cmd, sock: ours}
	if in.tun, err = in.receive(); err != nil {
		in.kill()
		_ = cmd.Wait()
		_ = ours.Close()
		return nil, explainNamespace(err)
	}
	return in, nil
}

// receive takes the TUN from the inside, or the words for why there is none.
func (in *inside) receive() (*os.File, error) {
	text, rights := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	n, rn, _, _, err := unix.Recvmsg(int(in.sock.Fd()), text, rights, unix.MSG_CMSG_CLOEXEC)
	switch {
	case err != nil:
		return nil, err
	case rn == 0 && n == 0:
		return nil, errors.New("it ended before its namespaces were set up")
	case rn == 0:
		return nil, insideError(text[:n])
	}
	messages, err := unix.ParseSocketControlMessage(rights[:rn])
	if err != nil {
		return nil, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "tun"), nil
}

// begin lets the command begin.
func (in *inside) begin() error {
	defer in.sock.Close()
	if _, err := in.sock.Write([]byte{1}); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	return nil
}

// kill ends the command, whose network is gone.
func (in *inside) kill() {
	if in.cmd.Process.Kill() == nil {
		in.killed = true
	}
}

// insideError is what was said inside: an error number, and the words.
func insideError(b []byte) error {
	if len(b) < 4 {
		return errors.New("it said nothing that can be read")
	}
	return &saidInside{string(b[4:]), syscall.Errno(binary.BigEndian.Uint32(b))}
}

type saidInside struct {
	text  string
	errno syscall.Errno
}

// Error implements error.
func (e *saidInside) Error() string { return e.text }

// Unwrap returns what the system said.
func (e *saidInside) Unwrap() error { return e.errno }

// runInside becomes a command when this program was started for that.
func runInside() (code int, yes bool) {
	if os.Getenv(insideEnv) != "3" {
		return 0, false
	}
	return becomeInside(), true
}

// becomeInside is the whole program in the new namespaces; it returns only when that
// it cannot become the command.
func becomeInside() int {
	runtime.LockOSThread() // capabilities are a thread's
	sock := os.NewFile(3, "outside")
	err := os.Unsetenv(insideEnv)
	var tun *os.File
	if err == nil {
		tun, err = setUpInside()
	}
	if err != nil {
		var errno syscall.Errno
		errors.As(err, &errno)
		_, _ = sock.Write(append(binary.BigEndian.AppendUint32(nil, uint32(errno)), err.Error()...))
		return exitRunFailed
	}
	if err := unix.Sendmsg(3, []byte{1}, unix.UnixRights(int(tun.Fd())), nil, 0); err != nil {
		return exitRunFailed
	}
	_ = tun.Close()
	if n, err := sock.Read(make([]byte, 1)); n != 1 || err != nil {
		return exitRunFailed // whoever is outside has gone
	}
	_ = sock.Close()
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return exitRunFailed
	}
	err = syscall.Exec(os.Args[0], os.Args[1:], os.Environ())
	fmt.Fprintf(os.Stderr, "corax: run: %s: %v\n", os.Args[0], err)
	if errors.Is(err, fs.ErrNotExist) {
		return exitRunNotFound
	}
	return exitRunNotExec
}

func setUpInside() (*os.File, error) {
	tun, err := hostnet.OpenInner(hostnet.InnerConfig{Name: runTUN, MTU: runMTU, Addrs: runAddrs()})
	if err != nil {
		return nil, err
	}
	pingInside()
	if err := nameServerInside(); err != nil {
		return nil, fmt.Errorf("have names looked up in the cluster: %w", err)
	}
	return tun, nil
}

// pingInside lets programs have ICMP sockets, which need no capability then. Where /proc
// is read-only only those pings fail that want one.
func pingInside() {
	group := os.Getgid()
	_ = os.WriteFile("/proc/sys/net/ipv4/ping_group_range", fmt.Appendf(nil, "%d %[1]d\n", group), 0)
}

// resolvers are directories with the sockets of this host's own name services, which
// programs would ask before they read resolv.conf.
var resolvers = []string{"/run/systemd/resolve", "/run/nscd", "/var/run/nscd"}

const resolvConf = "/etc/resolv.conf"

// nameServerInside puts a resolv.conf over that of this host, in this namespace alone,
// on a file system in memory: nothing is written to any that is shared.
func nameServerInside() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	at, err := filepath.EvalSymlinks(resolvConf)
	if err != nil {
		return err
	}
	text := []byte("nameserver " + runNameServer().String() + "\n")
	mask := func(dir string) error {
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=64k,mode=755"); err != nil {
			return fmt.Errorf("mount over %s: %w", dir, err)
		}
		return nil
	}
	masked := map[string]bool{}
	for _, dir := range resolvers {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil || masked[real] {
			continue
		}
		masked[real] = true
		if err := mask(real); err != nil {
			return err
		}
		if strings.HasPrefix(at, real+"/") {
			return os.WriteFile(at, text, 0o644)
		}
	}
	// Any directory will do for as long as it takes.
	dir := filepath.Dir(at)
	source := filepath.Join(dir, "resolv.conf")
	target, err := unix.Open(at, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", at, err)
	}
	defer unix.Close(target)
	if err := mask(dir); err != nil {
		return err
	}
	err = os.WriteFile(source, text, 0o644)
	if err == nil {
		err = unix.Mount(source, fmt.Sprintf("/proc/self/fd/%d", target), "", unix.MS_BIND, "")
	}
	if e := unix.Unmount(dir, unix.MNT_DETACH); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("mount over %s: %w", at, err)
	}
	return nil
}

// explainNamespace says what on this host keeps users from making namespaces.
func explainNamespace(err error) error {
	if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EUSERS) {
		return err
	}
	for _, s := range []struct{ path, value, hint string }{
		{"/proc/sys/user/max_user_namespaces", "0", "user namespaces are switched off: sysctl user.max_user_namespaces=1000"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "user namespaces are for root alone: sysctl kernel.unprivileged_userns_clone=1"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor takes the rights in user namespaces away: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or a profile for corax that has userns"},
	} {
		if b, e := os.ReadFile(s.path); e == nil && strings.TrimSpace(string(b)) == s.value {
			return &hinted{err, s.hint}
		}
	}
	if b, e := os.ReadFile("/proc/self/status"); e == nil && strings.Contains(string(b), "\nSeccomp:\t2\n") {
		return &hinted{err, "a seccomp filter is in force, as in containers: run this outside, or with a profile that allows user namespaces"}
	}
	return err
}
