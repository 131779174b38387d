//go:build linux

package rootless_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"corax/integration/lab"
)

// asNobody starts what follows as a user without any right, who may open a TUN.
const asNobody = `mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200 &&
exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs -- "$@"`

// inside runs a command by corax run, as the user of the rootless agent.
func (w *world) inside(ctx context.Context, command ...string) *exec.Cmd {
	w.t.Helper()
	corax, err := lab.Corax()
	if err != nil {
		w.t.Fatal(err)
	}
	args := append([]string{"-m", "sh", "-c", asNobody, "sh", corax, "run", "--socket", w.gw.Socket(), "--"}, command...)
	cmd := exec.CommandContext(ctx, "unshare", args...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// ran is how a command ended.
type ran struct {
	code     int
	out, err string
}

func (w *world) run(command ...string) ran {
	w.t.Helper()
	return w.end(w.inside(within(w.t, 30*time.Second), command...))
}

func (w *world) end(cmd *exec.Cmd) ran {
	w.t.Helper()
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	err := cmd.Run()
	if e := new(exec.ExitError); err != nil && !errors.As(err, &e) {
		w.t.Fatalf("%v: %v", cmd.Args, err)
	}
	return ran{cmd.ProcessState.ExitCode(), out.String(), problem.String()}
}

// TestRun has programs that know nothing of Corax reach another domain by corax run.
func TestRun(t *testing.T) {
	for _, tool := range []string{"unshare", "setpriv", "curl", "iperf3", "ping"} {
		if _, err := exec.LookPath(tool); err != nil {
			lacking(t, "no %s here", tool)
		}
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		lacking(t, "no TUN here: %v", err)
	}
	dns := netip.MustParseAddr("10.244.0.2") // the pod of the hub
	w := newWorld(t, false, "--cluster-dns", dns.String())
	if err := w.Domains[0].Nodes[0].Pods[0].ServeDNS(dns, map[string][]netip.Addr{podName: {w.far.IP}}); err != nil {
		t.Fatal(err)
	}
	page := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	w.web(t, page)
	url := func(host string) string { return "http://" + net.JoinHostPort(host, fmt.Sprint(webPort)) + "/" }

	t.Run("who it is", func(t *testing.T) {
		r := w.run("sh", "-c", "id -u; grep CapEff /proc/self/status; cat /etc/resolv.conf")
		if want := "65534\nCapEff:\t0000000000000000\nnameserver 192.0.0.1\n"; r.out != want || r.code != 0 {
			t.Errorf("%+v, want %q", r, want)
		}
	})
	t.Run("TCP and names", func(t *testing.T) {
		for _, host := range []string{w.far.IP.String(), w.far.IP6.String(), podName} {
			if r := w.run("curl", "-sS", "--max-time", "20", url(host)); r.out != string(page) {
				t.Errorf("%s: %d bytes, exit code %d, %s", host, len(r.out), r.code, r.err)
			}
		}
	})
	t.Run("ping", func(t *testing.T) { w.pings(t) })
	t.Run("iperf3", func(t *testing.T) { w.iperf(t) })
	t.Run("what is not reached", func(t *testing.T) {
		for _, tt := range []struct {
			url  string
			code int // of curl: 6 cannot resolve, 7 cannot connect; 28 would be a timeout
		}{
			{"http://" + net.JoinHostPort(w.far.IP.String(), "9") + "/", 7},
			{"http://" + w.Domains[1].Nodes[0].IP.String() + ":10284/", 7},
			{"http://169.254.169.254/", 7},
			{"http://127.0.0.1:10284/", 7},
			{"http://nobody.shop.svc.cluster.local/", 6},
		} {
			if r := w.run("curl", "-sS", "--max-time", "15", tt.url); r.code != tt.code {
				t.Errorf("%s: %+v, want %d", tt.url, r, tt.code)
			}
		}
	})
	t.Run("exit codes", func(t *testing.T) {
		for _, tt := range []struct {
			command []string
			code    int
		}{
			{[]string{"sh", "-c", "exit 7"}, 7},
			{[]string{"sh", "-c", "kill -KILL $$"}, 128 + 9},
			{[]string{"/nonexistent/program"}, 127},
			{[]string{"/etc/passwd"}, 126},
			{[]string{"sh", "-c", "ls -l /proc/self/fd | grep -E 'socket:|tun'"}, 1}, // nothing of ours is left open
		} {
			if r := w.run(tt.command...); r.code != tt.code {
				t.Errorf("%q: %+v, want %d", tt.command, r, tt.code)
			}
		}
	})
	t.Run("signals", func(t *testing.T) { w.signals(t) })
	t.Run("where it cannot be", func(t *testing.T) { w.runRefused(t) })
}

// pings: a program that is not told of Corax pings pods and agents, and hears of what it
// cannot reach.
func (w *world) pings(t *testing.T) {
	hub, err := w.Domains[0].Agents[0].Status(within(t, 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	own, err := w.gw.Status(within(t, 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{w.far.IP.String(), w.far.IP6.String(), podName, hub.OverlayAddress, own.OverlayAddress} {
		if r := w.run("ping", "-c", "1", "-W", "10", to); r.code != 0 || !strings.Contains(r.out, " 0% packet loss") {
			t.Errorf("%s: %+v", to, r)
		}
	}
	if r := w.run("ping", "-c", "3", "-i", "0.2", "-s", "8000", w.far.IP.String()); r.code != 0 || !strings.Contains(r.out, "3 received") {
		t.Errorf("large ones: %+v", r)
	}
	// An agent with a TUN pings by its kernel, which has to let it.
	n := w.Domains[1].Nodes[1]
	n.AllowPing()
	corax, err := lab.Corax()
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{w.far.IP.String(), w.far.IP6.String(), own.OverlayAddress} { // agents: those of its domain
		cmd := exec.CommandContext(within(t, 30*time.Second), corax, "run", "--socket", w.Domains[1].Agents[1].Socket(), "--", "ping", "-c", "1", "-W", "10", to)
		if r := w.end(cmd); r.code != 0 || !strings.Contains(r.out, " 0% packet loss") {
			t.Errorf("%s, with a TUN: %+v", to, r)
		}
	}
	for _, tt := range []struct{ to, want string }{
		{"169.254.169.254", "Packet filtered"},
		{w.Domains[1].Nodes[0].IP.String(), "Packet filtered"},
		{"2001:db8::1", "Administratively prohibited"},
		{"10.244.0.99", "Destination Host Unreachable"}, // as the host of that pod says
	} {
		if r := w.run("ping", "-c", "1", "-W", "10", tt.to); r.code != 1 || !strings.Contains(r.out, tt.want) {
			t.Errorf("%s: %+v, want %q", tt.to, r, tt.want)
		}
	}
}

// iperf measures nothing: that the program's two ends agree is the test.
func (w *world) iperf(t *testing.T) {
	for _, udp := range []bool{false, true} {
		server := exec.Command("iperf3", "-s", "-1", "-p", "5201")
		p, err := w.far.Start("iperf3", server)
		if err != nil {
			t.Fatal(err)
		}
		args := []string{"iperf3", "-c", w.far.IP.String(), "-J", "-t", "1"}
		if udp {
			args = append(args, "-u", "-b", "8M", "-l", "1200")
		}
		var r ran
		for range 50 { // it listens soon
			if r = w.run(args...); r.code == 0 || !strings.Contains(r.out, "refused") {
				break
			}
		}
		var result struct {
			Error string
			End   struct {
				Sum         struct{ Bytes, Packets, Lost_Packets float64 } //nolint:revive // iperf3's name
				SumReceived struct{ Bytes float64 }                        `json:"sum_received"`
			}
		}
		if err := json.Unmarshal([]byte(r.out), &result); err != nil || result.Error != "" || r.code != 0 {
			t.Errorf("udp %v: exit code %d, %v, %q, %s", udp, r.code, err, result.Error, r.err)
		} else if got := max(result.End.SumReceived.Bytes, result.End.Sum.Bytes); got < 500_000 {
			t.Errorf("udp %v: %v bytes came", udp, got)
		}
		_ = p.Kill()
	}
}

// signals: what is sent to corax run is for its command to decide on.
func (w *world) signals(t *testing.T) {
	cmd := w.inside(within(t, 30*time.Second), "sh", "-c", `trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 6)
	if _, err := out.Read(line); err != nil {
		t.Fatal(err)
	}
	// unshare, sh and setpriv have become corax run.
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 9 {
		t.Errorf("exit code %d, want 9", code)
	}
}

// runRefused: what is missing is said.
func (w *world) runRefused(t *testing.T) {
	corax, err := lab.Corax()
	if err != nil {
		t.Fatal(err)
	}
	run := corax + " run --socket " + w.gw.Socket() + " -- true"
	nobody := "setpriv --reuid=65534 --regid=65534 --clear-groups -- "
	for _, tt := range []struct{ name, script, want string }{
		// What holds for namespaces below this one; the user is that of the agent.
		{"no user namespaces", "exec " + nobody + "unshare -U -c --keep-caps sh -c 'echo 0 >/proc/sys/user/max_user_namespaces && exec " + run + "'", "user namespaces are switched off"},
		{"no TUN", "mount -t tmpfs tmpfs /dev/net && exec " + nobody + run, "no /dev/net/tun"},
	} {
		r := w.end(exec.CommandContext(within(t, 30*time.Second), "unshare", "-m", "sh", "-c", tt.script))
		if r.code != 125 || !strings.Contains(r.err, tt.want) {
			t.Errorf("%s: %+v, want %q", tt.name, r, tt.want)
		}
	}
	missing := exec.CommandContext(within(t, 30*time.Second), corax, "run", "--socket", "/nonexistent/agent.sock", "--", "true")
	if r := w.end(missing); r.code != 125 || !strings.Contains(r.err, "ask the agent") {
		t.Errorf("no agent: %+v", r)
	}
}
