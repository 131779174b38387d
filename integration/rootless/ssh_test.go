//go:build linux

package rootless_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"corax/integration/lab"
)

const sshPort = 7022

// ssh logs in to the remote pod with Debian's OpenSSH, whose bytes go over `corax
// nc`, by the pod's name.
func (w *world) ssh(t *testing.T) {
	for _, p := range []string{"ssh", "ssh-keygen", "/usr/sbin/sshd"} {
		if _, err := exec.LookPath(p); err != nil {
			lacking(t, "no %s here: install openssh-client and openssh-server", p)
		}
	}
	corax, err := lab.Corax()
	if err != nil {
		t.Fatal(err)
	}
	dir := w.startSSHD(t)
	// A file that is large enough to fill every window on its way.
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	if err := os.WriteFile(filepath.Join(dir, "data"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{
		"-F", "/dev/null", "-p", fmt.Sprint(sshPort), "-i", filepath.Join(dir, "user"), "-o", "BatchMode=yes",
		"-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=" + filepath.Join(dir, "known"), "-o", "HostKeyAlias=pod",
		"-o", fmt.Sprintf("ProxyCommand=%s nc --socket %s %%h %%p", corax, w.gw.Socket()), "root@" + podName,
	}
	ctx := within(t, 60*time.Second)
	// The file over and back: what sha256sum says there, and cat here.
	out, err := w.gw.Host.Run(ctx, "ssh", append(args, "sha256sum < "+filepath.Join(dir, "data"))...)
	if want := fmt.Sprintf("%x  -\n", sha256.Sum256(data)); err != nil || string(out) != want {
		t.Errorf("%q, %v; want %q", out, err, want)
	}
	file, err := os.Open(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.Command("ssh", append(args, "cat")...)
	var back, problem bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = file, &back, &problem
	p, err := w.gw.Host.Start("ssh", cmd)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		t.Fatalf("it does not end: %s", problem.String())
	}
	if p.Err() != nil || !bytes.Equal(back.Bytes(), data) {
		t.Errorf("%d of %d bytes came back: %v, %s", back.Len(), len(data), p.Err(), problem.String())
	}
	// The pod's own address, as sshd sees who asks.
	out, err = w.gw.Host.Run(ctx, "ssh", append(args, "echo $SSH_CONNECTION")...)
	var from, to netip.Addr
	var fromPort, toPort int
	var a, b string
	if _, serr := fmt.Sscan(string(out), &a, &fromPort, &b, &toPort); serr != nil || err != nil {
		t.Fatalf("%q, %v, %v", out, serr, err)
	}
	from, to = netip.MustParseAddr(a), netip.MustParseAddr(b)
	if to != w.far.IP || toPort != sshPort || !w.Domains[1].Nodes[0].Subnets[0].Contains(from) {
		t.Errorf("sshd sees %q", out)
	}
}

// startSSHD starts a server on the remote pod, for one key, and returns the folder
// with the client's files.
func (w *world) startSSHD(t *testing.T) string {
	t.Helper()
	dir := w.far.Dir()
	for _, name := range []string{"host", "user"} {
		out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, name)).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	public, err := os.ReadFile(filepath.Join(dir, "host.pub"))
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("ListenAddress %s\nPort %d\nHostKey %s\nAuthorizedKeysFile %s\nPidFile none\n"+
		"StrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n",
		w.far.IP, sshPort, filepath.Join(dir, "host"), filepath.Join(dir, "user.pub"))
	for name, text := range map[string]string{"sshd_config": config, "known": "pod " + string(public)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The folder for its unprivileged half, in the pod's own /run.
	if err := w.far.Do(func() error { return os.MkdirAll("/run/sshd", 0o755) }); err != nil {
		t.Fatal(err)
	}
	p, err := w.far.Start("sshd", exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(dir, "sshd_config")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() })
	until(within(t, 20*time.Second), t, func() error {
		c, err := w.far.DialTCP(t.Context(), netip.AddrPortFrom(w.far.IP, sshPort))
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	return dir
}
