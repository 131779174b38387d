package kube

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"k8s.io/client-go/tools/cache"

	"corax/control"
	"corax/control/api/v1beta1"
)

var _ cache.ReflectorStore = (*gatewayStore)(nil)

// gatewayStore is what the reflector of Gateways fills.
type gatewayStore struct {
	changed func()

	mu      sync.Mutex
	listed  bool
	objects map[string]kept
}

// kept is what stays of an object.
type kept struct {
	gateway  v1beta1.Gateway
	problems []control.Problem
}

func newGatewayStore(changed func()) *gatewayStore {
	return &gatewayStore{changed: changed, objects: map[string]kept{}}
}

// all returns the Gateways sorted by name, and what is wrong with them; false
// before they were listed.
func (s *gatewayStore) all() ([]v1beta1.Gateway, []control.Problem, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.listed {
		return nil, nil, false
	}
	out := make([]v1beta1.Gateway, 0, len(s.objects))
	var problems []control.Problem
	for _, k := range s.objects {
		out = append(out, k.gateway)
		problems = append(problems, k.problems...)
	}
	slices.SortFunc(out, func(a, b v1beta1.Gateway) int { return strings.Compare(a.Metadata.Name, b.Metadata.Name) })
	return out, problems, true
}

// Add notes a new object.
func (s *gatewayStore) Add(obj any) error { return s.set(obj) }

// Update notes a changed object.
func (s *gatewayStore) Update(obj any) error { return s.set(obj) }

// Delete forgets an object.
func (s *gatewayStore) Delete(obj any) error {
	o, ok := obj.(*object)
	if !ok {
		return fmt.Errorf("a %T among the gateways", obj)
	}
	s.mu.Lock()
	delete(s.objects, o.Name)
	s.mu.Unlock()
	s.changed()
	return nil
}

// Replace takes a whole list.
func (s *gatewayStore) Replace(list []any, _ string) error {
	objects := make(map[string]kept, len(list))
	for _, obj := range list {
		o, ok := obj.(*object)
		if !ok {
			return fmt.Errorf("a %T among the gateways", obj)
		}
		if o.Name != "" {
			objects[o.Name] = kept{o.gateway, o.problems}
		}
	}
	s.mu.Lock()
	s.objects, s.listed = objects, true
	s.mu.Unlock()
	s.changed()
	return nil
}

// Resync does nothing: nothing is handed on from here but whole states.
func (s *gatewayStore) Resync() error { return nil }

func (s *gatewayStore) set(obj any) error {
	o, ok := obj.(*object)
	if !ok {
		return fmt.Errorf("a %T among the gateways", obj)
	}
	s.mu.Lock()
	s.objects[o.Name] = kept{o.gateway, o.problems}
	s.mu.Unlock()
	s.changed()
	return nil
}
