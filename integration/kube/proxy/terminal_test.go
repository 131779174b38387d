//go:build linux

package proxy_test

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openTerminal returns both ends of a terminal of 24 rows and 80 columns.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { _ = master.Close() })
	must(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(t, err)
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	resize(t, master, 24, 80)
	return master, slave
}

func resize(t *testing.T, master *os.File, rows, columns uint16) {
	t.Helper()
	must(t, unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}))
}

// terminal runs a program on a terminal that changes its size.
func (w *world) terminal(t *testing.T, node string) {
	const watch = `tty -s && echo terminal; old=; while :; do s=$(stty size); [ "$s" = "$old" ] || echo size $s; old=$s; [ "$s" = "50 132" ] && exit 7; sleep 0.05; done`
	master, slave := openTerminal(t)
	cmd := w.Cluster.KubectlCommand("exec", "-it", pod(node), "-c", "main", "--", "sh", "-c", watch)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	p, err := w.Control.Start("kubectl", cmd)
	must(t, err)
	t.Cleanup(func() { _ = p.Kill() })
	_ = slave.Close()
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for scan := bufio.NewScanner(master); scan.Scan(); {
			lines <- strings.TrimSpace(scan.Text())
		}
	}()
	wait := func(want string) {
		t.Helper()
		var seen []string
		for end := time.After(15 * time.Second); ; {
			select {
			case s, ok := <-lines:
				if s == want {
					return
				}
				if !ok {
					t.Fatalf("it ended without %q: %q", want, seen)
				}
				seen = append(seen, s)
			case <-end:
				t.Fatalf("no %q, but %q", want, seen)
			}
		}
	}
	wait("terminal")
	wait("size 24 80")
	resize(t, master, 50, 132)
	must(t, p.Signal(unix.SIGWINCH)) // it is not this terminal's own process group
	wait("size 50 132")
	select {
	case <-p.Done():
	case <-time.After(15 * time.Second):
		t.Fatal("it does not end")
	}
	if exitCode(p.Err()) != 7 {
		t.Errorf("exit status 7 came as %v", p.Err())
	}
}
