package main

import (
	"context"
	"errors"

	"corax/dataplane"
	"corax/dataplane/hostnet"
)

// An agent without a TUN has nothing on the host, but one with a TUN may have run
// here and been killed. What that one left (table, rule, nftables table, TUN)
// keeps the packets of the pods in. With --datapath netstack somebody has decided
// to do without, so it goes. With --datapath auto the TUN failed by accident, so
// the remote subnets stay closed, until SIGTERM says that the agent's job is over.

// withoutHost reports whether the agent runs although the host could not be
// looked at: where no TUN is asked for, and nobody is known to be in the way. A
// sandbox may have no netlink.
func (a *agent) withoutHost(err error) bool {
	if a.cfg.Datapath == datapathTUN || a.cfg.TakeOver || errors.Is(err, hostnet.ErrRaven) {
		return false
	}
	a.host, a.datapath, a.datapathReason = nil, datapathNetstack, err.Error()
	if a.cfg.Datapath == datapathNetstack {
		a.datapathReason = "asked for with --datapath netstack"
	}
	a.log.Warn("the host is not looked at", "err", err)
	return true
}

// clearHost removes what a dead agent left.
func (a *agent) clearHost() {
	err := a.host.Clear()
	a.host = nil
	switch {
	case err == nil:
	case errors.Is(err, hostnet.ErrInUse): // that agent lives
		a.log.Info("an agent with a TUN runs on this host too", "err", err)
	default:
		a.left = "an agent with a TUN has left something that cannot be removed: " + err.Error()
	}
}

// holdHost keeps what a dead agent left as the plan wants it, without a TUN, and
// returns what is in the way.
func (a *agent) holdHost(ctx context.Context, c dataplane.Config) []string {
	var out []string
	if a.left != "" {
		out = append(out, a.left)
	}
	if a.host == nil {
		return out
	}
	problems, err := a.host.Hold(ctx, a.hostState(c))
	for _, p := range problems {
		out = append(out, p.String())
	}
	if err != nil {
		out = append(out, err.Error())
	}
	return out
}

// hostState is what a plan wants of the host. A cluster whose tunnel mode is
// switched off wants nothing at all.
func (a *agent) hostState(c dataplane.Config) hostnet.State {
	return hostnet.State{
		Subnets: c.Self.Subnets, Routes: c.Host, MTU: c.Self.MTU,
		Off: !a.switched(a.loop.snapshot).EnableTunnel,
	}
}

// letGo is closeHost for an agent without a TUN.
func (a *agent) letGo() {
	if a.host == nil {
		return
	}
	if err := a.host.Clear(); err != nil && !errors.Is(err, hostnet.ErrInUse) {
		a.log.Error("the host keeps something of ours", "err", err)
	}
}
