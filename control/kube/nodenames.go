package kube

import (
	"fmt"
	"strings"
	"sync"

	"k8s.io/client-go/tools/cache"

	"corax/control/api/v1beta1"
)

var _ cache.ReflectorStore = (*nodeNames)(nil)

// nodeNames is what the reflector of Nodes fills: under which names they are asked
// for. The zero value knows none.
type nodeNames struct {
	mu     sync.Mutex
	listed bool
	hosts  map[string]string // Hostname address by node
	index  map[string]string // node by name, in small letters; nil: to be made anew
}

// node returns the node of a name: its own, or its Hostname address. listed is
// false before the nodes were read.
func (s *nodeNames) node(name string) (node string, known, listed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.index == nil {
		s.index = indexNodes(s.hosts)
	}
	node, known = s.index[strings.ToLower(name)]
	return node, known, s.listed
}

// hostname returns the Hostname address of a node, in small letters.
func (s *nodeNames) hostname(node string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.TrimSuffix(strings.ToLower(s.hosts[node]), ".")
}

// indexNodes makes the index. A kubelet says its Hostname itself: one that is the
// name of another node leads to that, and one that two nodes say leads nowhere, since
// nobody knows who took it from whom.
func indexNodes(hosts map[string]string) map[string]string {
	index := make(map[string]string, len(hosts))
	said := make(map[string]int, len(hosts))
	hostOf := func(node string) string { return strings.TrimSuffix(strings.ToLower(hosts[node]), ".") }
	for node := range hosts {
		index[strings.ToLower(node)] = node
		said[hostOf(node)]++
	}
	for node := range hosts {
		host := hostOf(node)
		if _, taken := index[host]; !taken && said[host] == 1 && v1beta1.CheckHost(host) == nil {
			index[host] = node
		}
	}
	return index
}

// forget drops everything, until the nodes are read again.
func (s *nodeNames) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hosts, s.index, s.listed = nil, nil, false
}

// Add notes a new node.
func (s *nodeNames) Add(obj any) error { return s.Update(obj) }

// Update notes a changed node. Kubelets report every few minutes: what changes no
// name changes nothing here.
func (s *nodeNames) Update(obj any) error {
	n, ok := obj.(*nodeObject)
	if !ok {
		return fmt.Errorf("a %T among the nodes", obj)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if host, there := s.hosts[n.Name]; there && host == n.hostname {
		return nil
	}
	if s.hosts == nil {
		s.hosts = map[string]string{}
	}
	s.hosts[n.Name], s.index = n.hostname, nil
	return nil
}

// Delete forgets a node.
func (s *nodeNames) Delete(obj any) error {
	n, ok := obj.(*nodeObject)
	if !ok {
		return fmt.Errorf("a %T among the nodes", obj)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.hosts, n.Name)
	s.index = nil
	return nil
}

// Replace takes a whole list.
func (s *nodeNames) Replace(list []any, _ string) error {
	hosts := make(map[string]string, len(list))
	for _, obj := range list {
		n, ok := obj.(*nodeObject)
		if !ok {
			return fmt.Errorf("a %T among the nodes", obj)
		}
		if n.Name != "" {
			hosts[n.Name] = n.hostname
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hosts, s.index, s.listed = hosts, nil, true
	return nil
}

// Resync does nothing.
func (s *nodeNames) Resync() error { return nil }
