//go:build linux

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	metricsPort = 10283
	healthPort  = 10284
	stopGrace   = 10 * time.Second
)

// AgentConfig configures one corax agent.
type AgentConfig struct {
	Node     string     // --node-name; empty means the host's name
	NodeIP   netip.Addr // --node-ip
	Gateways string     // --gateways; empty with a Kubeconfig
	// Kubeconfig is --kubeconfig: the Gateway objects come from a cluster.
	Kubeconfig string
	Args       []string // further arguments
	Env        []string // further environment, NAME=value
	Binary     string   // empty means Corax()
	// Attr is how the process is started, as another user for example, who then
	// needs access to its files. Zero means as the lab's own processes.
	Attr syscall.SysProcAttr
}

// Agent is a real corax agent on a host. Its methods are not for concurrent use,
// except Status and Ready.
type Agent struct {
	Host *Host
	cfg  AgentConfig
	proc *Process

	deprived bool
	setns    bool // and may enter namespaces
}

// NewAgent prepares an agent, without starting it: its state directory and
// socket are in the host's directory and stay the same over restarts.
func (h *Host) NewAgent(cfg AgentConfig) (*Agent, error) {
	if cfg.Node == "" {
		cfg.Node = h.Name
	}
	if cfg.Binary == "" {
		path, err := Corax()
		if err != nil {
			return nil, err
		}
		cfg.Binary = path
	}
	a := &Agent{Host: h, cfg: cfg}
	h.lab.mu.Lock()
	h.lab.agents = append(h.lab.agents, a)
	h.lab.mu.Unlock()
	return a, nil
}

// Agent prepares and starts an agent. It does not wait until it is ready.
func (h *Host) Agent(cfg AgentConfig) (*Agent, error) {
	a, err := h.NewAgent(cfg)
	if err != nil {
		return nil, err
	}
	return a, a.Start()
}

// StateDir returns the agent's state directory.
func (a *Agent) StateDir() string { return filepath.Join(a.Host.dir, "state") }

// Socket returns the path of the agent's local API.
func (a *Agent) Socket() string { return filepath.Join(a.Host.dir, "agent.sock") }

// LogFile returns the path of what the agent wrote, over all its starts.
func (a *Agent) LogFile() string { return filepath.Join(a.Host.dir, "agent.log") }

// Process returns the running or last process; nil before Start.
func (a *Agent) Process() *Process { return a.proc }

// Key runs `corax key`: it makes the key pair when there is none, and returns
// the public key as base64.
func (a *Agent) Key(ctx context.Context) (string, error) {
	out, err := a.Host.Run(ctx, a.cfg.Binary, "key", "--state-dir", a.StateDir())
	return strings.TrimSpace(string(out)), err
}

// Start starts the process.
func (a *Agent) Start() error {
	args := []string{
		"agent", "--node-name", a.cfg.Node, "--node-ip", a.cfg.NodeIP.String(),
		"--state-dir", a.StateDir(), "--socket", a.Socket(),
	}
	if a.cfg.Kubeconfig != "" {
		args = append(args, "--kubeconfig", a.cfg.Kubeconfig)
	} else {
		args = append(args, "--gateways", a.cfg.Gateways)
	}
	args = append(append(args, a.cfg.Args...), a.detourArgs()...)
	binary, env := a.cfg.Binary, append(os.Environ(), a.cfg.Env...)
	if a.deprived {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("lab: %w", err)
		}
		if err := a.giveAway(); err != nil {
			return fmt.Errorf("lab: files of %s: %w", a.Host.Name, err)
		}
		binary, env = self, append(env, deprivedEnv+"="+a.cfg.Binary)
		if a.setns {
			env = append(env, depriveSetnsEnv+"=1")
		} else if a.Host.lab.tb != nil {
			a.Host.lab.tb.Logf("%s has no TUN and no privilege", a.Host.Name)
		}
	}
	cmd := exec.Command(binary, args...)
	cmd.Env = env
	cmd.Dir = a.Host.dir
	attr := a.cfg.Attr
	cmd.SysProcAttr = &attr
	p, err := a.Host.Start("agent", cmd)
	if err == nil {
		a.proc = p
	}
	return err
}

// Stop ends the agent with SIGTERM and waits; how it ended is the result.
func (a *Agent) Stop() error {
	if a.proc == nil {
		return nil
	}
	return a.proc.Stop(stopGrace)
}

// Kill ends the agent with SIGKILL and waits.
func (a *Agent) Kill() error {
	if a.proc == nil {
		return nil
	}
	return a.proc.Kill()
}

// Restart stops the agent and starts it again.
func (a *Agent) Restart() error {
	if err := a.Stop(); err != nil {
		return err
	}
	return a.Start()
}

// SetArgs replaces the further arguments for the next start.
func (a *Agent) SetArgs(args ...string) { a.cfg.Args = args }

// SetEnv replaces the further environment for the next start.
func (a *Agent) SetEnv(env ...string) { a.cfg.Env = env }

// SetBinary replaces the program, for the next start and for commands.
func (a *Agent) SetBinary(path string) { a.cfg.Binary = path }

// SetAttr replaces how the process is started, for the next start.
func (a *Agent) SetAttr(attr syscall.SysProcAttr) { a.cfg.Attr = attr }

// Command runs a client command such as "status" on the agent's host and returns
// its standard output.
func (a *Agent) Command(ctx context.Context, args ...string) ([]byte, error) {
	return a.Host.Run(ctx, a.cfg.Binary, append(args, "--socket", a.Socket())...)
}

// Get asks the local API for a path and returns the body of a 200 answer.
func (a *Agent) Get(ctx context.Context, path string) ([]byte, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", a.Socket())
	}
	return get(ctx, dial, "http://agent"+path)
}

// Status returns what GET /v1/status says.
func (a *Agent) Status(ctx context.Context) (*Status, error) {
	b, err := a.Get(ctx, "/v1/status")
	if err != nil {
		return nil, fmt.Errorf("lab: status of %s: %w", a.Host.Name, err)
	}
	s := new(Status)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("lab: status of %s: %w", a.Host.Name, err)
	}
	return s, nil
}

// Metrics returns the samples without labels of GET /metrics, by name.
func (a *Agent) Metrics(ctx context.Context) (map[string]float64, error) {
	url := "http://" + netip.AddrPortFrom(a.cfg.NodeIP, metricsPort).String() + "/metrics"
	b, err := get(ctx, a.Host.Dial, url)
	if err != nil {
		return nil, fmt.Errorf("lab: metrics of %s: %w", a.Host.Name, err)
	}
	samples := make(map[string]float64)
	for line := range strings.Lines(string(b)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || strings.ContainsAny(name, "#{") {
			continue
		}
		if samples[name], err = strconv.ParseFloat(value, 64); err != nil {
			return nil, fmt.Errorf("lab: metrics of %s: %s: %w", a.Host.Name, name, err)
		}
	}
	return samples, nil
}

// Ready asks /readyz once; nil means ready.
func (a *Agent) Ready(ctx context.Context) error {
	url := "http://" + netip.AddrPortFrom(a.cfg.NodeIP, healthPort).String() + "/readyz"
	_, err := get(ctx, a.Host.Dial, url)
	return err
}

// WaitReady waits until the agent says that it is ready, or ended, or ctx ends.
func (a *Agent) WaitReady(ctx context.Context) error {
	return a.wait(ctx, "ready", func() error { return a.Ready(ctx) })
}

// WaitStatus waits until ok accepts the status; the error that ok returned last
// says what was missing.
func (a *Agent) WaitStatus(ctx context.Context, ok func(*Status) error) error {
	return a.wait(ctx, "status", func() error {
		s, err := a.Status(ctx)
		if err != nil {
			return err
		}
		return ok(s)
	})
}

func (a *Agent) wait(ctx context.Context, what string, f func() error) error {
	if a.proc == nil {
		return fmt.Errorf("lab: agent on %s was not started", a.Host.Name)
	}
	ended := errors.New("the agent ended")
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	proc := a.proc
	finished := make(chan struct{})
	defer close(finished)
	go func() {
		select {
		case <-proc.Done():
			cancel(ended)
		case <-finished:
		}
	}()
	if err := poll(ctx, 50*time.Millisecond, f); err != nil {
		if errors.Is(err, ended) {
			b, _ := os.ReadFile(a.LogFile())
			return fmt.Errorf("lab: agent on %s: %w: %s", a.Host.Name, ended, tail(string(b), 1))
		}
		return fmt.Errorf("lab: agent on %s: wait for %s: %w", a.Host.Name, what, err)
	}
	return nil
}

func get(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), url string) ([]byte, error) {
	t := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(body[:min(len(body), 500)])))
	}
	return body, err
}
