package kube

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"
)

var (
	// ErrNoService means that no Service has an address and port.
	ErrNoService = errors.New("no Service has that address and port")
	// ErrUnread means that the Services could not be read yet.
	ErrUnread = errors.New("the Services are not read yet")
)

// Endpoints returns the ready endpoints of the Service that has an address, and a
// port of "tcp" or "udp". Its errors are [ErrNoService], and [ErrUnread] before the
// Services were read. [Config.Services] has them read.
func (c *Client) Endpoints(network string, at netip.AddrPort) ([]netip.AddrPort, error) {
	return c.services.endpoints(network, at)
}

// Affinity returns for how long after each connection a client is led to the same
// endpoint of a Service, whose address and port are as of [Client.Endpoints]: its session
// affinity. Zero: not at all, or there is no such Service.
func (c *Client) Affinity(network string, at netip.AddrPort) time.Duration {
	return c.services.affinity(network, at)
}

// objectKey names an object of a namespace.
type objectKey struct{ namespace, name string }

// services is what the reflectors of Services and EndpointSlices fill. The zero
// value knows none.
type services struct {
	mu           sync.Mutex
	read, sliced bool
	services     map[objectKey]*serviceObject
	at           map[netip.Addr]objectKey
	slices       map[objectKey]*sliceObject
	of           map[objectKey][]string // names of slices by Service
}

func (s *services) endpoints(network string, at netip.AddrPort) ([]netip.AddrPort, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.read || !s.sliced {
		return nil, ErrUnread
	}
	k, ok := s.at[at.Addr().Unmap()]
	if !ok {
		return nil, ErrNoService
	}
	ports := s.services[k].ports
	i := slices.IndexFunc(ports, func(p servicePort) bool { return p.network == network && p.port == at.Port() })
	if i < 0 {
		return nil, fmt.Errorf("%s/%s: %w", k.namespace, k.name, ErrNoService)
	}
	var out []netip.AddrPort
	for _, name := range s.of[k] {
		slice := s.slices[objectKey{k.namespace, name}]
		for _, p := range slice.ports {
			if p.name != ports[i].name || p.network != network {
				continue
			}
			for _, a := range slice.addrs {
				if a.Is4() == at.Addr().Unmap().Is4() {
					out = append(out, netip.AddrPortFrom(a, p.port))
				}
			}
		}
	}
	// An endpoint may be in two slices while it moves from one to the other.
	slices.SortFunc(out, netip.AddrPort.Compare)
	return slices.Compact(out), nil
}

func (s *services) affinity(network string, at netip.AddrPort) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.services[s.at[at.Addr().Unmap()]]
	if o == nil || !slices.ContainsFunc(o.ports, func(p servicePort) bool { return p.network == network && p.port == at.Port() }) {
		return 0
	}
	return o.affinity
}

func (s *services) setService(o *serviceObject) {
	k := objectKey{o.Namespace, o.Name}
	s.dropService(k)
	s.services[k] = o
	for _, a := range o.addrs {
		s.at[a] = k
	}
}

func (s *services) dropService(k objectKey) {
	if old := s.services[k]; old != nil {
		for _, a := range old.addrs {
			if s.at[a] == k {
				delete(s.at, a)
			}
		}
		delete(s.services, k)
	}
}

func (s *services) setSlice(o *sliceObject) {
	k := objectKey{o.Namespace, o.Name}
	s.dropSlice(k)
	s.slices[k] = o
	of := objectKey{o.Namespace, o.service}
	s.of[of] = append(s.of[of], o.Name)
}

func (s *services) dropSlice(k objectKey) {
	old := s.slices[k]
	if old == nil {
		return
	}
	delete(s.slices, k)
	of := objectKey{k.namespace, old.service}
	if s.of[of] = slices.DeleteFunc(s.of[of], func(n string) bool { return n == k.name }); len(s.of[of]) == 0 {
		delete(s.of, of)
	}
}

// edit locks, and makes the maps.
func (s *services) edit(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.services == nil {
		s.services, s.at = map[objectKey]*serviceObject{}, map[netip.Addr]objectKey{}
		s.slices, s.of = map[objectKey]*sliceObject{}, map[objectKey][]string{}
	}
	f()
}

// storeOf is one half of services, as a reflector fills it.
type storeOf[T any] struct {
	s       *services
	set     func(T)
	drop    func(T)
	replace func(list []T)
}

var _ cache.ReflectorStore = storeOf[*serviceObject]{}

// Add notes a new object.
func (w storeOf[T]) Add(obj any) error { return w.Update(obj) }

// Update notes a changed object.
func (w storeOf[T]) Update(obj any) error { return w.with(obj, w.set) }

// Delete forgets an object.
func (w storeOf[T]) Delete(obj any) error { return w.with(obj, w.drop) }

func (w storeOf[T]) with(obj any, f func(T)) error {
	o, ok := obj.(T)
	if !ok {
		return fmt.Errorf("a %T among the services", obj)
	}
	w.s.edit(func() { f(o) })
	return nil
}

// Replace takes a whole list.
func (w storeOf[T]) Replace(list []any, _ string) error {
	all := make([]T, 0, len(list))
	for _, obj := range list {
		o, ok := obj.(T)
		if !ok {
			return fmt.Errorf("a %T among the services", obj)
		}
		all = append(all, o)
	}
	w.s.edit(func() { w.replace(all) })
	return nil
}

// Resync does nothing.
func (w storeOf[T]) Resync() error { return nil }

func (s *services) serviceStore() storeOf[*serviceObject] {
	return storeOf[*serviceObject]{
		s: s, set: s.setService, drop: func(o *serviceObject) { s.dropService(objectKey{o.Namespace, o.Name}) },
		replace: func(list []*serviceObject) {
			clear(s.services)
			clear(s.at)
			for _, o := range list {
				s.setService(o)
			}
			s.read = true
		},
	}
}

func (s *services) sliceStore() storeOf[*sliceObject] {
	return storeOf[*sliceObject]{
		s: s, set: s.setSlice, drop: func(o *sliceObject) { s.dropSlice(objectKey{o.Namespace, o.Name}) },
		replace: func(list []*sliceObject) {
			clear(s.slices)
			clear(s.of)
			for _, o := range list {
				s.setSlice(o)
			}
			s.sliced = true
		},
	}
}
