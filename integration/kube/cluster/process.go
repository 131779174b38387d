//go:build linux

package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// process is a program of the control plane; a lab's Process is one.
type process interface {
	Stop(grace time.Duration) error // SIGTERM
	Kill() error                    // SIGKILL
	Signal(os.Signal) error
	Done() <-chan struct{}
}

// start runs one of the programs with its output in <name>.log.
func (c *Cluster) start(name string, args ...string) (process, error) {
	cmd := exec.Command(filepath.Join(c.tools, name), args...)
	if name == "kube-apiserver" && c.opt.Hosts != "" {
		cmd = WithHosts(c.opt.Hosts, cmd)
	}
	cmd.Dir = c.dir
	if c.opt.Host != nil {
		return c.opt.Host.Start(name, cmd)
	}
	return startHere(cmd, c.logFile(name))
}

// WithHosts returns cmd with a file mounted over its /etc/hosts.
func WithHosts(file string, cmd *exec.Cmd) *exec.Cmd {
	const mount = `mount --bind "$0" /etc/hosts && exec "$@"`
	return exec.Command("unshare", append([]string{"--mount", "sh", "-c", mount, file}, cmd.Args...)...)
}

func (c *Cluster) logFile(name string) string {
	if c.opt.Host != nil {
		return filepath.Join(c.opt.Host.Dir(), name+".log")
	}
	return filepath.Join(c.dir, name+".log")
}

// child is a process in our own namespaces.
type child struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait; valid when done is closed
}

// startHere starts a command that dies with this process.
func startHere(cmd *exec.Cmd, logFile string) (process, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &child{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The signal comes when the thread that started the process ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *child) Done() <-chan struct{} { return p.done }

func (p *child) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

func (p *child) Kill() error {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
	return nil
}

func (p *child) Stop(grace time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.err
	case <-timer.C:
		_ = p.Kill()
		return fmt.Errorf("it did not end within %s of SIGTERM", grace)
	}
}

// tail returns the last lines of a file, for a message.
func tail(file string, lines int) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
