package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"corax/dataplane"
	"corax/dataplane/fabric"
	"corax/dataplane/hostnet"
	"corax/dataplane/hostnet/userns"
	"corax/proxy/outbound"
)

// usernsLogEnv tells the helper in another namespace how to log: the level and the form.
const usernsLogEnv = "CORAX_USERNS_LOG"

// workload is the network namespace of a child user namespace, in which the TUN is.
type workload struct {
	*userns.Host
	empty atomic.Bool // nobody is in it any more, and we have left it, too
}

// Programs outside get into the tunnel from inside, where its routes are.
var (
	_ outbound.Network = (*workload)(nil)
	_ networkPings     = (*workload)(nil)
)

// runHelper is the whole program in such a namespace, when it was started for that.
func runHelper() (code int, yes bool) {
	if !userns.IsHelper() {
		return 0, false
	}
	var cfg agentConfig
	lvl, form, _ := strings.Cut(os.Getenv(usernsLogEnv), " ")
	err := errors.Join(level(&cfg.LogLevel)(lvl), oneOf(&cfg.LogFormat, logText, logJSON)(form))
	log := newLogger(os.Stderr, cfg.LogLevel, cfg.LogFormat)
	if err == nil {
		err = userns.Serve(log)
	}
	if err != nil {
		log.Error("the helper in the namespace ends", "err", err)
		return exitFailed, true
	}
	return exitOK, true
}

// validateUserns checks the two flags that go together.
func (c *agentConfig) validateUserns() error {
	switch {
	case c.Datapath == datapathUserns && c.Netns == "":
		return errors.New("--datapath userns needs --netns: a process that is in the network namespace, or a file that stands for it")
	case c.Datapath != datapathUserns && c.Netns != "":
		return errors.New("--netns is for --datapath userns alone")
	}
	return nil
}

// namespace parses the number of a process, or a path.
func namespace(dst *string) func(string) error {
	return func(s string) error {
		n, err := strconv.ParseInt(s, 10, 32)
		if !(err == nil && n > 0) && !strings.Contains(s, "/") || strings.ContainsRune(s, 0) {
			return fmt.Errorf("%q is neither the number of a process nor a path", s)
		}
		*dst = s
		return nil
	}
}

// buildWorkload opens the TUN in the namespace that --netns names.
func (a *agent) buildWorkload() error {
	if a.host != nil {
		a.clearHost() // somebody has decided to do without it there
	}
	h, tun, err := userns.Enter(userns.Config{
		Log:        a.log,
		Namespace:  a.cfg.Netns,
		Env:        []string{fmt.Sprintf("%s=%s %s", usernsLogEnv, strings.ToLower(a.cfg.LogLevel.String()), a.cfg.LogFormat)},
		Stderr:     os.Stderr,
		Name:       a.cfg.TUNName,
		MTU:        dataplane.DefaultMTU,
		Receive:    a.fabric.From(fabric.FromTUN),
		TakeOver:   a.cfg.TakeOver,
		HostSource: a.cfg.HostSources,
	})
	if err != nil {
		return fmt.Errorf("--netns %s: %w", a.cfg.Netns, err)
	}
	a.datapath, a.datapathReason = datapathUserns, "a TUN in the network namespace of "+h.String()
	a.tun, a.workload = tun, &workload{Host: h}
	return nil
}

// runWorkload runs what is beside the TUN until ctx ends. When the namespace has no
// process any more the agent goes on without it, for the other nodes of its domain.
func (a *agent) runWorkload(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.workload.Watch(ctx, a.inbox.poke) })
	g.Go(func() error {
		if a.workload.WaitEmpty(ctx) {
			a.leaveWorkload()
		}
		return nil
	})
	return g.Wait()
}

// leaveWorkload lets the kernel take the namespace away. What is sent to it is counted
// by the TUN from now on.
func (a *agent) leaveWorkload() {
	a.log.Warn("the network namespace has no process any more", "netns", a.cfg.Netns)
	a.workload.empty.Store(true)
	a.workload.Leave()
	if err := a.tun.Close(); err != nil {
		a.log.Error("close the TUN", "err", err)
	}
	a.inbox.poke()
}

// apply brings the namespace to the plan.
func (w *workload) apply(ctx context.Context, netns string, s hostnet.State) ([]hostnet.Problem, error) {
	if w.empty.Load() {
		return []hostnet.Problem{{
			Name: "netns_empty",
			What: "the network namespace of --netns " + netns + " has no process any more: packets for this node's own pods are dropped; start the agent again with that of the new workload",
		}}, nil
	}
	problems, err := w.Apply(ctx, s)
	if w.empty.Load() {
		err = nil // that was the reason
	}
	return problems, err
}

// routed are the addresses that must not be routed into the TUN, and so those beside it.
func (a *agent) routed() ([]netip.Prefix, error) {
	switch {
	case a.workload == nil:
		return hostnet.Prefixes(a.cfg.TUNName)
	case a.workload.empty.Load():
		return nil, nil
	}
	return a.workload.Prefixes()
}

// DialPing pings from inside.
func (w *workload) DialPing(ctx context.Context, to netip.Addr) (net.Conn, error) {
	c, err := w.Host.DialPing(ctx, to)
	if err != nil {
		return nil, err
	}
	return &hostPings{Conn: c, v4: to.Is4()}, nil
}

// close takes everything off the namespace.
func (w *workload) close(tun *hostnet.TUN) error {
	if w.empty.Load() {
		return nil
	}
	return errors.Join(w.Close(), tun.Remove())
}
