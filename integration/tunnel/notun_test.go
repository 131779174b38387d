//go:build linux

package tunnel_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"corax/integration/lab"
)

// nobody is a user that owns nothing and may do nothing.
const nobody = 65534

func asNobody() syscall.SysProcAttr {
	return syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
}

// give makes a user own what an agent writes.
func give(t *testing.T, a *lab.Agent, uid int) {
	t.Helper()
	if err := os.Chmod(a.Host.Lab().Dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	private := filepath.Join(a.StateDir(), "private.key")
	for _, p := range []string{a.Host.Dir(), a.StateDir(), private} {
		if err := os.Chown(p, uid, uid); errors.Is(err, unix.EINVAL) {
			lab.LeftOut(t, "what needs a second user")
			lacking(t, "this user namespace has one user only")
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// TestNoTUN runs a gateway node that cannot have a TUN, for each reason: with
// --datapath auto it serves its domain and its own pods, says why it has no TUN,
// and needs no privilege; with --datapath tun it refuses to start.
func TestNoTUN(t *testing.T) {
	f := prepareFaults(t, lab.Options{})
	gw := f.edge().Agents[0]
	for i, a := range f.Agents() {
		if i != 2 {
			if err := a.Start(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name    string
		prepare func(t *testing.T)
		undo    func() error
		attr    func(t *testing.T) syscall.SysProcAttr
		why     string
	}{
		{
			"no such device", func(t *testing.T) { mountOver(t, gw.Host, "/dev/net", "tmpfs") },
			unmount(gw.Host, "/dev/net"), nil, "no /dev/net/tun: load the module tun, or give the container the device",
		},
		{"no permission to open it", func(t *testing.T) {
			private := filepath.Join(gw.Host.Dir(), "tun")
			if err := os.WriteFile(private, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			mountOver(t, gw.Host, "/dev/net/tun", private)
			give(t, gw, nobody)
		}, unmount(gw.Host, "/dev/net/tun"), user, "no permission to open /dev/net/tun"},
		{"no CAP_NET_ADMIN", func(t *testing.T) {
			openDevice(t, gw.Host)
			give(t, gw, nobody) // or skip: then what was made is undone
		}, unmount(gw.Host, "/dev/net"), user, "no permission for the TUN: needs CAP_NET_ADMIN"},
		{"asked for", func(t *testing.T) { give(t, gw, 0) }, nil, nil, "asked for with --datapath netstack"},
		{"the device cgroup", func(t *testing.T) { give(t, gw, 0) }, nil, noDevices, "TUN refused by the device cgroup"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.undo != nil {
				defer func() {
					if err := tt.undo(); err != nil {
						t.Error(err)
					}
				}()
			}
			tt.prepare(t)
			gw.SetAttr(syscall.SysProcAttr{})
			if tt.attr != nil {
				gw.SetAttr(tt.attr(t))
			}
			gw.SetArgs("--datapath", "netstack")
			if tt.name != "asked for" {
				gw.SetArgs("--datapath", "tun")
				wantRefusal(t, gw, 1, "corax: agent: hostnet: open TUN corax0: ", tt.why)
				gw.SetArgs("--datapath", "auto")
			}
			if err := gw.Start(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if err := gw.WaitReady(ctx); err != nil {
				t.Fatal(err)
			}
			servesWithoutTUN(ctx, t, f)
			s := f.status(gw)
			if s.Datapath != "netstack" || !strings.Contains(s.DatapathReason, tt.why) {
				t.Errorf("datapath %s: %s", s.Datapath, s.DatapathReason)
			}
			// Who asked for it is not told again.
			if got := s.Problem("reach other domains only through the agent's proxies: "); got != (tt.name != "asked for") || got && !s.Problem(tt.why) {
				t.Errorf("problems: %q", s.Problems)
			}
			if err := gw.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

func user(*testing.T) syscall.SysProcAttr { return asNobody() }

// mountOver hides a path of a host with a file or a tmpfs.
func mountOver(t *testing.T, h *lab.Host, path, source string) {
	t.Helper()
	err := h.Do(func() error {
		if source == "tmpfs" {
			return unix.Mount("tmpfs", path, "tmpfs", 0, "")
		}
		return unix.Mount(source, path, "", unix.MS_BIND, "")
	})
	if err != nil {
		t.Fatal(err)
	}
}

// openDevice gives a host a TUN device of its own that every user may open: on
// some machines only root may open the machine's.
func openDevice(t *testing.T, h *lab.Host) {
	t.Helper()
	mountOver(t, h, "/dev/net", "tmpfs")
	err := h.Do(func() error {
		const device = "/dev/net/tun"
		if err := unix.Mknod(device, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200))); err != nil {
			return err
		}
		return os.Chmod(device, 0o666) // whatever the umask
	})
	if errors.Is(err, unix.EPERM) {
		lab.LeftOut(t, "what needs a device of its own")
		lacking(t, "no device can be made: needs CAP_MKNOD")
	} else if err != nil {
		t.Fatal(err)
	}
}

func unmount(h *lab.Host, path string) func() error {
	return func() error { return h.Do(func() error { return unix.Unmount(path, 0) }) }
}

// noDevices makes a control group in which no device can be opened, and an
// attribute that starts a process in it.
func noDevices(t *testing.T) syscall.SysProcAttr {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	dir := ""
	for line := range strings.Lines(string(mounts)) {
		if w := strings.Fields(line); len(w) > 2 && w[2] == "cgroup2" {
			dir = filepath.Join(w[1], fmt.Sprintf("corax-test-%d", os.Getpid()))
		}
	}
	if dir == "" {
		lacking(t, "no cgroup of version 2 is mounted")
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		lacking(t, "no cgroup can be made: %v", err)
	}
	group, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = group.Close()
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	if err := denyDevices(int(group.Fd())); err != nil {
		lacking(t, "no device program can be attached: %v", err)
	}
	return syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
}

// denyDevices attaches a program to a cgroup that says no: bpf(2), struct
// bpf_attr of BPF_PROG_LOAD and BPF_PROG_ATTACH.
func denyDevices(group int) error {
	code := []uint64{0xb7, 0x95} // r0 = 0; exit
	license := []byte("GPL\x00")
	load := struct {
		kind, count     uint32
		code, license   uint64
		level, size     uint32
		log             uint64
		version, flags  uint32
		name            [16]byte
		ifindex, attach uint32
	}{
		kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(code)),
		code: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	prog, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load))
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	if errno != 0 {
		return errno
	}
	defer func() { _ = unix.Close(int(prog)) }()
	attach := struct{ target, prog, kind, flags uint32 }{uint32(group), uint32(prog), unix.BPF_CGROUP_DEVICE, 0}
	if _, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH, uintptr(unsafe.Pointer(&attach)), unsafe.Sizeof(attach)); errno != 0 {
		return errno
	}
	return nil
}

// servesWithoutTUN checks what the edge's gateway node does without a TUN.
func servesWithoutTUN(ctx context.Context, t *testing.T, f *faults) {
	t.Helper()
	gw, plain := f.edge().Nodes[0], f.edge().Nodes[1]
	far := f.cloud().Nodes[1].Pods[0]
	// The pods of its plain nodes, both ways and with both families.
	for _, to := range []netip.Addr{far.IP, far.IP6} {
		at := netip.AddrPortFrom(to, faultPort)
		if _, err := plain.Pods[0].PingUntil(ctx, to, lab.PingOptions{}); err != nil {
			t.Error(err)
		}
		if _, err := plain.Pods[0].Transfer(ctx, at, 1<<20); err != nil {
			t.Error(err)
		}
	}
	if _, err := far.Transfer(ctx, netip.AddrPortFrom(plain.Pods[0].IP, faultPort), 1<<20); err != nil {
		t.Error(err)
	}
	// Its overlay address.
	if out, err := f.hub().Command(ctx, "ping", gw.Name, "-c", "2"); err != nil || !strings.Contains(string(out), "2 sent, 2 answered, 0 % lost") {
		t.Errorf("corax ping: %s, %v", out, err)
	}
	// Its own pods, by sockets: see integration/rootless.
	if _, err := far.Transfer(ctx, netip.AddrPortFrom(gw.Pods[0].IP, faultPort), 1<<20); err != nil {
		t.Error(err)
	}
}
