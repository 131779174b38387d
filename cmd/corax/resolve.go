package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sort"
	"sync"
	"time"
)

// resolveEvery is how often the names of hubs are looked up again: the address
// of a load balancer may change behind its name.
const resolveEvery = 30 * time.Second

// A resolver knows the addresses of hubs that publish a DNS name instead of an
// address. Its methods may be called from several goroutines. It must not be
// copied.
type resolver struct {
	lookup  func(ctx context.Context, host string) ([]netip.Addr, error)
	changed func() // called when an address changed

	wake chan struct{}
	mu   sync.Mutex
	host map[string]resolved
}

type resolved struct {
	addr netip.Addr   // the one in use
	all  []netip.Addr // that the name has, sorted; never changed in place
	err  error
}

func newResolver(changed func()) *resolver {
	return &resolver{
		lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		},
		changed: changed,
		wake:    make(chan struct{}, 1),
		host:    map[string]resolved{},
	}
}

// Want sets the names to keep resolved.
func (r *resolver) Want(hosts []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for h := range r.host {
		if !slices.Contains(hosts, h) {
			delete(r.host, h)
		}
	}
	for _, h := range hosts {
		if _, ok := r.host[h]; !ok {
			r.host[h] = resolved{err: fmt.Errorf("look up %s: not answered yet", h)}
			select {
			case r.wake <- struct{}{}:
			default:
			}
		}
	}
}

// Addr returns the last known address of a wanted name. A failed lookup keeps
// the address that was known before; the error then says why it may be old.
func (r *resolver) Addr(host string) (netip.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	res := r.host[host]
	return res.addr, res.err
}

// Addrs returns all last known addresses of a wanted name. They must not be
// changed.
func (r *resolver) Addrs(host string) []netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.host[host].all
}

// Run looks names up until ctx is done.
func (r *resolver) Run(ctx context.Context) error {
	tick := time.NewTicker(resolveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-r.wake:
		}
		r.lookupAll(ctx)
	}
}

func (r *resolver) lookupAll(ctx context.Context) {
	r.mu.Lock()
	hosts := make([]string, 0, len(r.host))
	for h := range r.host {
		hosts = append(hosts, h)
	}
	r.mu.Unlock()
	slices.Sort(hosts)
	for _, h := range hosts {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		addrs, err := r.lookup(ctx, h)
		cancel()
		r.store(h, addrs, err)
	}
}

// store keeps the present address while the name still has it, so that a
// round-robin name does not move a tunnel at every look.
func (r *resolver) store(host string, addrs []netip.Addr, err error) {
	r.mu.Lock()
	old, wanted := r.host[host]
	if !wanted {
		r.mu.Unlock()
		return
	}
	res := resolved{addr: old.addr, all: old.all}
	switch {
	case err != nil:
		res.err = fmt.Errorf("look up %s: %w", host, err)
	case len(addrs) == 0:
		res.err = fmt.Errorf("look up %s: no address", host)
	default:
		for i := range addrs {
			addrs[i] = addrs[i].Unmap()
		}
		sort.Slice(addrs, func(i, j int) bool { return addrs[i].Compare(addrs[j]) < 0 })
		res.all = slices.Compact(addrs)
		if !slices.Contains(addrs, old.addr) {
			res.addr = addrs[0]
		}
	}
	r.host[host] = res
	moved := res.addr != old.addr || !slices.Equal(res.all, old.all) || (res.err == nil) != (old.err == nil)
	r.mu.Unlock()
	if moved {
		r.changed()
	}
}
