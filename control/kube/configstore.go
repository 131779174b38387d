package kube

import (
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
)

var _ cache.ReflectorStore = (*configStore)(nil)

// configStore is what the reflector of one ConfigMap fills, of which one entry is
// wanted.
type configStore struct {
	name, key string
	// set is called with the entry, empty when it is not there; one call after the
	// other.
	set func(value string)

	mu sync.Mutex
}

func (s *configStore) take(obj any) error {
	m, ok := obj.(*corev1.ConfigMap)
	if !ok {
		return fmt.Errorf("a %T among the config maps", obj)
	}
	if m.Name == s.name {
		s.put(m.Data[s.key])
	}
	return nil
}

func (s *configStore) put(value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(value)
}

// Add notes the ConfigMap.
func (s *configStore) Add(obj any) error { return s.take(obj) }

// Update notes the changed ConfigMap.
func (s *configStore) Update(obj any) error { return s.take(obj) }

// Delete forgets what it said.
func (s *configStore) Delete(obj any) error {
	if m, ok := obj.(*corev1.ConfigMap); ok && m.Name == s.name {
		s.put("")
	}
	return nil
}

// Replace takes a list that has the ConfigMap or has it not.
func (s *configStore) Replace(list []any, _ string) error {
	value := ""
	for _, obj := range list {
		if m, ok := obj.(*corev1.ConfigMap); ok && m.Name == s.name {
			value = m.Data[s.key]
		}
	}
	s.put(value)
	return nil
}

// Resync does nothing.
func (s *configStore) Resync() error { return nil }
