//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Process is a program that runs on a host, in its namespaces.
type Process struct {
	Name string
	Log  string // path of the file with its output

	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait; valid when done is closed
}

// Start runs a program on the host. Its standard output and error, where cmd
// does not set them, are appended to <name>.log in the host's directory. It has
// a process group of its own (no Ctrl-C of a terminal reaches it) and dies with
// the lab, however that ends.
func (h *Host) Start(name string, cmd *exec.Cmd) (*Process, error) {
	if h.space == nil {
		return nil, fmt.Errorf("lab: host %s: %w", h.Name, errSpaceClosed)
	}
	p := &Process{Name: name, Log: filepath.Join(h.dir, name+".log"), cmd: cmd, done: make(chan struct{})}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	defer func() { _ = log.Close() }()
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	if cmd.Stderr == nil {
		cmd.Stderr = log
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL // when the host's thread ends
	if err := h.Do(cmd.Start); err != nil {
		return nil, fmt.Errorf("lab: start %s on %s: %w", name, h.Name, err)
	}
	go p.wait()
	h.mu.Lock()
	h.procs = append(h.procs, p)
	h.mu.Unlock()
	return p, nil
}

// Run runs a program on the host to its end and returns its standard output. The
// error holds what it wrote to standard error.
func (h *Host) Run(ctx context.Context, name string, args ...string) ([]byte, error) {
	var out, errs limitedBuffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	p, err := h.Start("run", cmd)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		_ = p.Kill()
		return out.Bytes(), fmt.Errorf("lab: %s on %s: %w", filepath.Base(name), h.Name, context.Cause(ctx))
	}
	if p.err != nil {
		return out.Bytes(), fmt.Errorf("lab: %s on %s: %w: %s", filepath.Base(name), h.Name, p.err, errs.Bytes())
	}
	return out.Bytes(), nil
}

func (p *Process) wait() {
	p.err = p.cmd.Wait()
	close(p.done)
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the process ended, nil for exit code 0, once Done is closed.
func (p *Process) Err() error { return p.err }

// PID returns the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal to the process.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Kill ends the process and its group with SIGKILL and waits until it is gone.
func (p *Process) Kill() error {
	select {
	case <-p.done:
		return nil
	default:
	}
	_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
	<-p.done
	return nil
}

// Stop ends the process with SIGTERM and returns how it ended: nil for exit
// code 0. One that has not ended after the given time is killed, and that is an
// error.
func (p *Process) Stop(grace time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("lab: stop %s: %w", p.Name, err)
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		_ = p.Kill()
		return fmt.Errorf("lab: %s did not end within %s of SIGTERM", p.Name, grace)
	}
	if p.err != nil {
		return fmt.Errorf("lab: %s ended: %w", p.Name, p.err)
	}
	return nil
}

// limitedBuffer keeps the first MiB written to it.
type limitedBuffer struct{ b []byte }

func (w *limitedBuffer) Write(p []byte) (int, error) {
	w.b = append(w.b, p[:min(len(p), 1<<20-len(w.b))]...)
	return len(p), nil
}

func (w *limitedBuffer) Bytes() []byte { return w.b }
