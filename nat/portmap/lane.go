package portmap

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"
)

// asker is the part of client that a lane uses.
type asker interface {
	mapAny(ctx context.Context, gateways []netip.Addr, want ask) (grant, error)
	renew(ctx context.Context, g grant, want ask) (grant, error)
	remove(ctx context.Context, g grant) error
}

// lane runs one family's machine. Only run touches m.
type lane struct {
	log      *slog.Logger
	asker    asker
	gateways func() []netip.Addr
	changed  func()

	m      machine
	view   atomic.Pointer[FamilyStatus]
	wanted atomic.Bool
	poked  atomic.Bool
	wake   chan struct{}     // capacity 1: something above changed
	heard  chan announcement // bounded; what does not fit is dropped: another will come
}

func newLane(log *slog.Logger, a asker, cfg Config, family func(netip.Addr) bool) *lane {
	l := &lane{
		log: log, asker: a, changed: cfg.Changed,
		m:     machine{port: cfg.Port},
		wake:  make(chan struct{}, 1),
		heard: make(chan announcement, 4),
	}
	l.gateways = func() (out []netip.Addr) {
		for _, gw := range cfg.Gateways() {
			if gw = gw.Unmap(); family(gw) && !gw.IsUnspecified() && len(out) < maxGateways {
				out = append(out, gw)
			}
		}
		return out
	}
	l.view.Store(&FamilyStatus{})
	return l
}

func (l *lane) want(on bool) {
	l.wanted.Store(on)
	l.ring()
}

func (l *lane) poke() {
	l.poked.Store(true)
	l.ring()
}

func (l *lane) ring() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *lane) offered() (netip.AddrPort, Protocol, bool) {
	s := l.view.Load()
	if s.Protocol == None || s.DoubleNAT {
		return netip.AddrPort{}, None, false
	}
	return s.External, s.Protocol, true
}

func (l *lane) run(ctx context.Context) {
	for ctx.Err() == nil {
		now := time.Now()
		l.m.want(now, l.wanted.Load())
		if l.m.wanted {
			l.m.routers(now, l.gateways(), l.poked.Swap(false))
		}
		a := l.m.next(now)
		l.publish()
		if a.kind == actNone {
			l.wait(ctx, l.m.deadline())
			continue
		}
		l.do(ctx, a)
		l.publish()
	}
	l.m.want(time.Now(), false)
	for a := l.m.next(time.Now()); a.kind != actNone; a = l.m.next(time.Now()) {
		l.do(ctx, a)
	}
	l.publish()
}

// wait returns at the deadline, when there is one, or when something happened.
func (l *lane) wait(ctx context.Context, until time.Time) {
	var due <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
	case <-due:
	case <-l.wake:
	case a := <-l.heard:
		l.m.announced(time.Now(), a)
	}
}

func (l *lane) do(ctx context.Context, a action) {
	switch a.kind {
	case actMap:
		g, err := l.asker.mapAny(ctx, l.m.gateways, a.ask)
		if ctx.Err() != nil && err != nil {
			return
		}
		l.m.mapped(time.Now(), g, err)
	case actRenew:
		g, err := l.asker.renew(ctx, a.grant, a.ask)
		l.m.mapped(time.Now(), g, err)
	case actRemove:
		if err := l.asker.remove(ctx, a.grant); err != nil {
			l.log.Debug("mapping not deleted", "mapping", a.grant.external, "protocol", a.grant.proto.String(), "err", err)
		}
	}
}

// publish shows the machine's state, and tells and logs what is new.
func (l *lane) publish() {
	now := l.m.status()
	was := l.view.Swap(&now)
	if was.External == now.External && was.Protocol == now.Protocol && was.Gateway == now.Gateway {
		return
	}
	switch {
	case now.Protocol == None:
		l.log.Info("port mapping gone", "mapping", was.External, "protocol", was.Protocol.String())
	case now.DoubleNAT:
		l.log.Info("port mapped, behind another NAT", "mapping", now.External, "protocol", now.Protocol.String())
	default:
		l.log.Info("port mapped", "mapping", now.External, "protocol", now.Protocol.String())
	}
	l.changed()
}
