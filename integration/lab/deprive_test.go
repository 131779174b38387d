//go:build linux

package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

func TestSyscallFilter(t *testing.T) {
	vm, err := bpf.NewVM(syscallFilter(unix.AUDIT_ARCH_X86_64))
	if err != nil {
		t.Fatal(err)
	}
	eperm, enosys := seccompErrno|int(unix.EPERM), seccompErrno|int(unix.ENOSYS)
	for _, tt := range []struct {
		name         string
		arch, number uint32
		arg          uint32
		want         int
	}{
		{"read", unix.AUDIT_ARCH_X86_64, unix.SYS_READ, 0, seccompAllow},
		{"another architecture", unix.AUDIT_ARCH_I386, unix.SYS_READ, 0, seccompKill},
		{"mount", unix.AUDIT_ARCH_X86_64, unix.SYS_MOUNT, 0, eperm},
		{"ptrace", unix.AUDIT_ARCH_X86_64, unix.SYS_PTRACE, 0, eperm},
		{"bpf", unix.AUDIT_ARCH_X86_64, unix.SYS_BPF, 0, eperm},
		{"io_uring", unix.AUDIT_ARCH_X86_64, unix.SYS_IO_URING_SETUP, 0, eperm},
		{"unshare", unix.AUDIT_ARCH_X86_64, unix.SYS_UNSHARE, 0, eperm},
		{"one of the future", unix.AUDIT_ARCH_X86_64, newest + 1, 0, eperm},
		{"one of x32", unix.AUDIT_ARCH_X86_64, 1<<30 | 1, 0, eperm},
		{"clone3", unix.AUDIT_ARCH_X86_64, unix.SYS_CLONE3, 0, enosys},
		{"clone for a thread", unix.AUDIT_ARCH_X86_64, unix.SYS_CLONE, unix.CLONE_VM | unix.CLONE_THREAD, seccompAllow},
		{"clone into a namespace", unix.AUDIT_ARCH_X86_64, unix.SYS_CLONE, unix.CLONE_VM | unix.CLONE_NEWUSER, eperm},
		{"socket", unix.AUDIT_ARCH_X86_64, unix.SYS_SOCKET, unix.AF_INET6, seccompAllow},
		{"vsock", unix.AUDIT_ARCH_X86_64, unix.SYS_SOCKET, unix.AF_VSOCK, eperm},
		{"personality", unix.AUDIT_ARCH_X86_64, unix.SYS_PERSONALITY, 0, seccompAllow},
		{"another personality", unix.AUDIT_ARCH_X86_64, unix.SYS_PERSONALITY, 0x40000, eperm},
	} {
		data := make([]byte, 64) // the VM loads big endian
		binary.BigEndian.PutUint32(data[seccompNumber:], tt.number)
		binary.BigEndian.PutUint32(data[seccompArch:], tt.arch)
		binary.BigEndian.PutUint32(data[seccompArg0:], tt.arg)
		if got, err := vm.Run(data); err != nil || got != tt.want {
			t.Errorf("%s: %#x, %v; want %#x", tt.name, got, err, tt.want)
		}
	}
}

// TestDeprived looks at what a deprived program has, from inside.
func TestDeprived(t *testing.T) {
	l := ForTest(t)
	h := l.Host("host")
	a, err := h.NewAgent(AgentConfig{NodeIP: netip.MustParseAddr("192.0.2.1"), Binary: "/bin/sh"})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Deprive(); err != nil {
		t.Fatal(err)
	}
	if err := a.giveAway(); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs limitedBuffer
	cmd := exec.Command(self, "-c", "cat /proc/self/status; ls /dev/net; unshare -U true; mount -t tmpfs x /mnt; echo > mine; echo done")
	cmd.Env, cmd.Dir = append(os.Environ(), deprivedEnv+"=/bin/sh"), h.Dir()
	cmd.Stdout, cmd.Stderr = &out, &errs
	p, err := h.Start("deprived", cmd)
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	user := fmt.Sprintf("Uid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d\n", DeprivedUser())
	for _, want := range []string{
		user, "CapInh:\t0000000000000000\n", "CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n",
		"CapBnd:\t0000000000000000\n", "CapAmb:\t0000000000000000\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n", "\ndone\n",
	} {
		if !strings.Contains(string(out.Bytes()), want) {
			t.Errorf("no %q in\n%s", want, out.Bytes())
		}
	}
	if strings.Contains(string(out.Bytes()), "\ntun\n") {
		t.Error("there is a /dev/net/tun")
	}
	if text := string(errs.Bytes()); !strings.Contains(text, "unshare failed: Operation not permitted") || strings.Contains(text, "mine") {
		t.Errorf("it said %q", text)
	}
	if err := p.Err(); err != nil {
		t.Error(err)
	}
}
