package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"corax/control/api/v1beta1"
	"corax/dataplane"
)

// State is what the connection to the cluster is like.
type State struct {
	// Server is the URL of the API server.
	Server string
	// Connected says that the API server answered last.
	Connected bool
	// Since is how long Connected has been as it is; zero before the first answer
	// or failure.
	Since time.Time
	// Err is why it is not connected; of one outage the first error.
	Err string
	// Recalled is when the state in force was written to disk, while it comes
	// from there; zero otherwise.
	Recalled time.Time
	// SettingsErr is why raven-cfg cannot be read although Gateways can; empty
	// when it can.
	SettingsErr string
	// BalancersErr is why this node's Services cannot be read although Gateways
	// can; empty when they can, and where they are not read.
	BalancersErr string
	// CacheErr is what is wrong with what is kept on disk.
	CacheErr string
	// Written is when this node's endpoint entry was written last; zero: never.
	Written time.Time
	// WriteErr is why it could not be, when that came last.
	WriteErr string
	// NodesErr is why the names of the nodes cannot be read on a front of the proxy.
	NodesErr string
	// ServingErr is why a front has no certificate of its own, or why it cannot be
	// renewed.
	ServingErr string
	// ServingUntil is when that certificate lapses; zero without one.
	ServingUntil time.Time
	// ServicesErr and SlicesErr are why the Services of the cluster, or their
	// endpoints, cannot be read where they are wanted.
	ServicesErr, SlicesErr string
	// HostsErr is why the hosts file of a control plane cannot be kept.
	HostsErr string
	// Lease is "active" or "candidate" while a Lease is kept, else empty.
	Lease string
	// LeaseErr is why it could not be renewed, when that came last.
	LeaseErr string
}

// Problems says in words what an operator should mend.
func (s State) Problems() []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, "cluster: "+fmt.Sprintf(format, args...)) }
	recalled := ""
	if !s.Recalled.IsZero() {
		recalled = "; what is in force was kept on disk at " + stamp(s.Recalled)
	}
	if !s.Connected && !s.Since.IsZero() {
		add("the API server at %s is away since %s: %s%s", s.Server, stamp(s.Since), s.Err, recalled)
	}
	if s.CacheErr != "" {
		add("what is known cannot be kept on disk: %s", s.CacheErr)
	}
	if !s.Connected {
		return out // the rest follows from it
	}
	for _, e := range []struct{ what, err string }{
		{"configmap/" + settingsName + " cannot be read, what it said last counts", s.SettingsErr},
		{"the Services of this node's load balancers cannot be read, what its entry says of them stays", s.BalancersErr},
		{"this node's endpoint entry cannot be written", s.WriteErr},
		{"this node's Lease cannot be renewed", s.LeaseErr},
		{"the Hostname addresses of nodes cannot be read, the proxy knows nodes by their own names alone", s.NodesErr},
		{"no serving certificate for the proxy, TLS cannot end at this front (it is passed through as ever)", s.servingErr()},
		{"the serving certificate of the proxy cannot be renewed, it lapses at " + stamp(s.ServingUntil), s.renewalErr()},
		{"the Services cannot be read, their addresses lead where they led last", s.ServicesErr},
		{"the EndpointSlices cannot be read, addresses of Services lead where they led last", s.SlicesErr},
		{"the hosts file for this node's API server cannot be kept", s.HostsErr},
	} {
		if e.err != "" {
			add("%s: %s", e.what, e.err)
		}
	}
	return out
}

func (s State) servingErr() string {
	if s.ServingUntil.IsZero() {
		return s.ServingErr
	}
	return ""
}

func (s State) renewalErr() string {
	if s.ServingUntil.IsZero() {
		return ""
	}
	return s.ServingErr
}

func stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// link is what is known of the connection. It belongs to all goroutines of a
// Client.
type link struct {
	log     *slog.Logger
	changed func()

	mu     sync.Mutex
	now    State
	addr   netip.Addr
	counts map[dataplane.Counter]uint64 // the key's Value is zero
	up     []chan struct{}              // told when it is connected again
}

func newLink(server string, log *slog.Logger, changed func()) *link {
	if changed == nil {
		changed = func() {}
	}
	return &link{log: log, changed: changed, now: State{Server: server}, counts: map[dataplane.Counter]uint64{}}
}

func (l *link) state() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

func (l *link) address() netip.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.addr
}

// update changes the state and tells of it when it is another.
func (l *link) update(f func(*State)) {
	l.mu.Lock()
	was := l.now
	f(&l.now)
	differs := l.now != was
	l.mu.Unlock()
	if differs {
		l.changed()
	}
}

// count adds one to a counter.
func (l *link) count(name, reason string) {
	l.mu.Lock()
	l.counts[dataplane.Counter{Name: name, Reason: reason}]++
	l.mu.Unlock()
}

// read notes what became of a request for Gateways.
func (l *link) read(err error) {
	l.count("kube_reads_total", reason(err))
	now := time.Now()
	l.update(func(s *State) {
		ok := err == nil
		switch {
		case ok && !s.Connected:
			s.Connected, s.Since, s.Err = true, now, ""
			l.log.Info("connected to the API server", "server", s.Server)
			for _, c := range l.up {
				select {
				case c <- struct{}{}:
				default:
				}
			}
		case !ok && (s.Connected || s.Since.IsZero()):
			s.Connected, s.Since, s.Err = false, now, clip(err.Error())
			l.log.Warn("the API server is away", "server", s.Server, "err", err)
		case !ok:
			l.log.Debug("the API server is still away", "err", err)
		}
	})
}

// onConnect has c told when the API server answers again.
func (l *link) onConnect(c chan struct{}) { l.up = append(l.up, c) }

// settings notes what became of a request for raven-cfg. While no Gateways can
// be read either, that says it all.
func (l *link) settings(err error) {
	l.update(func(s *State) { answered(&s.SettingsErr, err) })
}

// balancers notes what became of a request for Services, as settings does.
func (l *link) balancers(err error) {
	l.update(func(s *State) { answered(&s.BalancersErr, err) })
}

// nodes notes what became of a request for Nodes, as settings does.
func (l *link) nodes(err error) {
	l.update(func(s *State) { answered(&s.NodesErr, err) })
}

// services and slices note what became of a request for Services and EndpointSlices,
// as settings does.
func (l *link) services(err error) {
	l.update(func(s *State) { answered(&s.ServicesErr, err) })
}

func (l *link) slices(err error) {
	l.update(func(s *State) { answered(&s.SlicesErr, err) })
}

// hosts notes what became of keeping the hosts file.
func (l *link) hosts(err error) {
	l.update(func(s *State) {
		s.HostsErr = ""
		if err != nil {
			s.HostsErr = clip(err.Error())
		}
	})
}

// served notes the certificate of the front, and what is wrong with the next one.
func (l *link) served(until time.Time, err error) {
	l.update(func(s *State) {
		s.ServingUntil, s.ServingErr = until, ""
		if err != nil {
			s.ServingErr = clip(err.Error())
		}
	})
}

// unfront forgets what concerns fronts.
func (l *link) unfront() {
	l.update(func(s *State) { s.NodesErr, s.ServingErr, s.ServingUntil = "", "", time.Time{} })
}

// answered keeps an error that the API server answered with, until there is none.
func answered(kept *string, err error) {
	switch {
	case err == nil:
		*kept = ""
	case apierrors.ReasonForError(err) != "":
		*kept = clip(err.Error())
	}
}

// live notes that what is in force came from the API server.
func (l *link) live() { l.update(func(s *State) { s.Recalled = time.Time{} }) }

func (l *link) recalled(at time.Time) { l.update(func(s *State) { s.Recalled = at }) }

func (l *link) cacheFailed(err error) {
	l.update(func(s *State) {
		s.CacheErr = ""
		if err != nil {
			s.CacheErr = clip(err.Error())
		}
	})
}

// dialed notes where the API server is.
func (l *link) dialed(a net.Addr) {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return
	}
	addr := t.AddrPort().Addr().Unmap().WithZone("")
	l.mu.Lock()
	differs := l.addr != addr
	l.addr = addr
	l.mu.Unlock()
	if differs {
		l.changed()
	}
}

// wrote notes what became of writing the endpoint entry.
func (l *link) wrote(err error) {
	l.count("kube_entry_writes_total", reason(err))
	now := time.Now()
	l.update(func(s *State) {
		if err != nil {
			s.WriteErr = clip(err.Error())
			return
		}
		s.Written, s.WriteErr = now, ""
	})
}

// renewed notes what became of a Lease.
func (l *link) renewed(err error) {
	l.count("kube_lease_writes_total", reason(err))
	l.update(func(s *State) {
		s.LeaseErr = ""
		if err != nil {
			s.LeaseErr = clip(err.Error())
		}
	})
}

func (l *link) leased(role string) { l.update(func(s *State) { s.Lease = role }) }

// counters returns the counters, in a stable order.
func (l *link) counters() []dataplane.Counter {
	l.mu.Lock()
	defer l.mu.Unlock()
	connected := uint64(0)
	if l.now.Connected {
		connected = 1
	}
	out := []dataplane.Counter{{Name: "kube_connected", Value: connected}}
	for c, n := range l.counts {
		c.Value = n
		out = append(out, c)
	}
	slices.SortFunc(out[1:], func(a, b dataplane.Counter) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Reason, b.Reason))
	})
	return out
}

// reason is a short name of what became of a request, for counters.
func reason(err error) string {
	switch {
	case err == nil:
		return "ok"
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return "conflict"
	case apierrors.IsInvalid(err):
		return "invalid"
	case apierrors.IsTooManyRequests(err):
		return "throttled"
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return "denied"
	case apierrors.IsNotFound(err):
		return "not_found"
	case apierrors.IsTimeout(err), apierrors.IsServerTimeout(err), errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case utilnet.IsConnectionRefused(err):
		return "refused"
	default:
		return "other"
	}
}

// clip bounds what a state repeats of an error.
func clip(s string) string { return v1beta1.Clip(s, 300) }
