package outbound

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// maxAffinities bounds which clients' endpoints are remembered.
const maxAffinities = 4096

// clientKey is where a context has the address of a client.
type clientKey struct{}

// WithClient says for whom something is dialled: Services with session affinity lead one
// client to one endpoint. Without it, and with a zero address, it is for programs of this
// host that have none, which are one client.
func WithClient(ctx context.Context, client netip.Addr) context.Context {
	return context.WithValue(ctx, clientKey{}, client.Unmap())
}

func clientOf(ctx context.Context) netip.Addr {
	a, _ := ctx.Value(clientKey{}).(netip.Addr)
	return a
}

// affinityKey is a client, and a port of a Service.
type affinityKey struct {
	client  netip.Addr
	network string
	at      netip.AddrPort
}

// affinity is where a client was led to, and until when it is led there again.
type affinity struct {
	to    netip.AddrPort
	until time.Time
}

// affinities remember endpoints. The zero value knows none. Its methods may be called
// from several goroutines at once.
type affinities struct {
	mu sync.Mutex
	m  map[affinityKey]affinity
}

// prefer puts the endpoint that a client was led to first, when it is in the list still.
func (a *affinities) prefer(now time.Time, k affinityKey, list []netip.AddrPort) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e, ok := a.m[k]
	if !ok {
		return
	}
	i := slices.Index(list, e.to)
	if !now.Before(e.until) || i < 0 {
		delete(a.m, k)
		return
	}
	copy(list[1:i+1], list[:i])
	list[0] = e.to
}

// keep notes where a client was led to. Of too many the one that lapses first is
// forgotten.
func (a *affinities) keep(now time.Time, k affinityKey, to netip.AddrPort, timeout time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.m == nil {
		a.m = make(map[affinityKey]affinity)
	}
	if _, known := a.m[k]; !known && len(a.m) >= maxAffinities {
		a.makeRoomLocked(now)
	}
	a.m[k] = affinity{to, now.Add(timeout)}
}

func (a *affinities) makeRoomLocked(now time.Time) {
	var first affinityKey
	var until time.Time
	for k, e := range a.m {
		if !now.Before(e.until) {
			delete(a.m, k)
		} else if until.IsZero() || e.until.Before(until) {
			first, until = k, e.until
		}
	}
	if len(a.m) >= maxAffinities {
		delete(a.m, first)
	}
}
