package kube

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"corax/control/api/v1beta1"
)

// balancer is how a load balancer in front of this node is reached; zero when
// there is none, or none that has an address.
type balancer struct {
	ip   string
	host string // when there is no ip
	port int    // UDP
}

// balancerOf returns what a Service says of its balancer: an IP address before a
// name, as entries are read.
func balancerOf(s *corev1.Service) balancer {
	i := slices.IndexFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Protocol == corev1.ProtocolUDP })
	// What is being deleted gives its address back.
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer || s.DeletionTimestamp != nil || i < 0 {
		return balancer{}
	}
	b := balancer{port: int(s.Spec.Ports[i].Port)}
	for _, at := range s.Status.LoadBalancer.Ingress {
		if ip, err := v1beta1.ParseAddr(at.IP); err == nil {
			return balancer{ip: ip.String(), port: b.port}
		}
		if b.host == "" && v1beta1.CheckHost(at.Hostname) == nil {
			b.host = at.Hostname
		}
	}
	if b.host == "" {
		return balancer{}
	}
	return b
}

// into returns e with the address of the balancer, and no other. What is not known
// is left as it stands, and so is the port of the fallback.
func (b balancer) into(e Entry) Entry {
	e.PublicIP, e.PublicHost, e.PublicPort, e.TLSPort = b.ip, b.host, b.port, 0
	return e
}

var _ cache.ReflectorStore = (*balancerStore)(nil)

// balancerStore is what the reflector of this node's Services fills.
type balancerStore struct {
	// changed is called with the balancers that have an address, by Gateway, one
	// call after the other.
	changed func(map[string]balancer)

	mu       sync.Mutex
	services map[string]service // by name
}

// service is what stays of a Service.
type service struct {
	gateway string
	balancer
}

func newBalancerStore(changed func(map[string]balancer)) *balancerStore {
	return &balancerStore{changed: changed, services: map[string]service{}}
}

// Add notes a new Service.
func (s *balancerStore) Add(obj any) error { return s.Update(obj) }

// Update notes a changed Service.
func (s *balancerStore) Update(obj any) error {
	return s.edit(func(all map[string]service) error { return note(all, obj) })
}

// Delete forgets a Service.
func (s *balancerStore) Delete(obj any) error {
	return s.edit(func(all map[string]service) error {
		svc, ok := obj.(*corev1.Service)
		if !ok {
			return fmt.Errorf("a %T among the services", obj)
		}
		delete(all, svc.Name)
		return nil
	})
}

// Replace takes a whole list.
func (s *balancerStore) Replace(list []any, _ string) error {
	return s.edit(func(all map[string]service) error {
		clear(all)
		for _, obj := range list {
			if err := note(all, obj); err != nil {
				return err
			}
		}
		return nil
	})
}

// Resync does nothing.
func (s *balancerStore) Resync() error { return nil }

// edit changes a copy of what is known, and tells of it.
func (s *balancerStore) edit(f func(map[string]service) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := maps.Clone(s.services)
	if err := f(all); err != nil {
		return err
	}
	s.services = all
	// Of several for one Gateway the first by name counts, for as long as it has
	// an address.
	known := map[string]balancer{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		svc := all[name]
		if _, there := known[svc.gateway]; !there && svc.port != 0 {
			known[svc.gateway] = svc.balancer
		}
	}
	s.changed(known)
	return nil
}

func note(all map[string]service, obj any) error {
	svc, ok := obj.(*corev1.Service)
	if !ok {
		return fmt.Errorf("a %T among the services", obj)
	}
	all[svc.Name] = service{svc.Labels[v1beta1.LabelGateway], balancerOf(svc)}
	return nil
}
