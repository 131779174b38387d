package kube

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"corax/control"
	"corax/control/api/v1beta1"
)

// settingsName is the ConfigMap that holds the switches of the cluster.
const settingsName = "raven-cfg"

// Its keys that an agent reads.
const (
	keyTunnel = "enable-l3-tunnel"
	keyProxy  = "enable-l7-proxy"
	keyAllow  = "acl-entry"
	// The address of a balancer inside the cloud's network, and the public one
	// that is bound to it.
	keyInside = "loadbalancer-ip"
	keyEIP    = "eip-ip"
)

// settings are the entries of raven-cfg that an agent reads, as they stand there.
type settings map[string]string

// switches is what settings say.
type switches struct {
	tunnel, proxy bool
	allow         allowed
	problems      []control.Problem
}

// allowed is the allow list in force.
type allowed struct {
	list   []netip.Prefix // empty: there is none
	closed bool           // there should be one, and it cannot be read
}

// allowOf returns the list that is in force by a snapshot.
func allowOf(s control.Snapshot) allowed { return allowed{s.AllowSources, s.AllowClosed} }

// parse reads the settings. A bad value is a problem: a switch is then as if it
// were not there, and of an allow list that is refused the one before stays in
// force. Before the first one that is closed: whoever wants a list does not want
// everybody.
func (s settings) parse(cfg Config, before allowed) switches {
	var sw switches
	problem := func(key, format string, args ...any) {
		sw.problems = append(sw.problems, control.Problem{
			Object: "configmap/" + settingsName, Field: key, Message: fmt.Sprintf(format, args...),
		})
	}
	read := func(key string, otherwise bool) bool {
		switch v := strings.ToLower(strings.TrimSpace(s[key])); v {
		case "":
			return otherwise
		case "true":
			return true
		case "false":
			return false
		default:
			problem(key, "%.100q is neither true nor false", v)
			return otherwise
		}
	}
	sw.tunnel = read(keyTunnel, cfg.EnableTunnel)
	sw.proxy = read(keyProxy, cfg.EnableProxy)
	if _, err := s.bound(); err != nil && cfg.Balancers {
		problem(keyEIP, "%v", err)
	}
	list, warnings, err := control.ParseAllowList(s[keyAllow])
	sw.allow = allowed{list: list}
	switch {
	case err == nil:
	case before.closed:
		sw.allow = before
		problem(keyAllow, "%v (no list was in force before: only the domain of a hub and published addresses of exposed gateways are let in)", err)
	default:
		sw.allow = before
		problem(keyAllow, "%v (the list before stays in force: %d entries)", err, len(before.list))
	}
	for _, w := range warnings {
		problem(keyAllow, "%s", w)
	}
	return sw
}

// bound is a public address that is bound to a balancer's address inside the cloud's
// network; zero when there is none.
type bound struct{ inside, public netip.Addr }

// bound reads it.
func (s settings) bound() (bound, error) {
	if s[keyEIP] == "" || s[keyInside] == "" {
		return bound{}, nil
	}
	public, err := v1beta1.ParseAddr(s[keyEIP])
	if err != nil {
		return bound{}, err
	}
	inside, err := v1beta1.ParseAddr(s[keyInside])
	if err != nil {
		return bound{}, err
	}
	return bound{inside, public}, nil
}

// of returns a balancer as it is reached from outside.
func (b bound) of(x balancer) balancer {
	if b.public.IsValid() && x.ip == b.inside.String() {
		x.ip = b.public.String()
	}
	return x
}

var _ cache.ReflectorStore = (*settingsStore)(nil)

// settingsStore is what the reflector of raven-cfg fills.
type settingsStore struct {
	changed func()

	mu    sync.Mutex
	known bool
	data  settings
}

func newSettingsStore(changed func()) *settingsStore { return &settingsStore{changed: changed} }

// get returns the settings; false when nothing is known of them.
func (s *settingsStore) get() (settings, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data, s.known
}

// assume sets what counts until the ConfigMap was read.
func (s *settingsStore) assume(data settings) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known {
		s.data = data
	}
}

// unreadable says that the ConfigMap cannot be read although the API server
// answers: then what was assumed counts.
func (s *settingsStore) unreadable() {
	s.mu.Lock()
	was := s.known
	s.known = true
	s.mu.Unlock()
	if !was {
		s.changed()
	}
}

func (s *settingsStore) set(data settings) {
	s.mu.Lock()
	s.data, s.known = data, true
	s.mu.Unlock()
	s.changed()
}

// Add notes the ConfigMap.
func (s *settingsStore) Add(obj any) error { return s.Update(obj) }

// Update notes the changed ConfigMap. Of another than ours nothing is read.
func (s *settingsStore) Update(obj any) error {
	m, ok := obj.(*corev1.ConfigMap)
	if !ok {
		return fmt.Errorf("a %T among the config maps", obj)
	}
	if m.Name == settingsName {
		s.set(pick(m))
	}
	return nil
}

// Delete forgets the ConfigMap.
func (s *settingsStore) Delete(obj any) error {
	if m, ok := obj.(*corev1.ConfigMap); ok && m.Name == settingsName {
		s.set(nil)
	}
	return nil
}

// Replace takes a list that has the ConfigMap or has it not.
func (s *settingsStore) Replace(list []any, _ string) error {
	var data settings
	for _, obj := range list {
		if m, ok := obj.(*corev1.ConfigMap); ok && m.Name == settingsName {
			data = pick(m)
		}
	}
	s.set(data)
	return nil
}

// Resync does nothing.
func (s *settingsStore) Resync() error { return nil }

// pick takes what is read of a ConfigMap.
func pick(m *corev1.ConfigMap) settings {
	data := settings{}
	for _, key := range []string{keyTunnel, keyProxy, keyAllow, keyInside, keyEIP} {
		if v, ok := m.Data[key]; ok {
			data[key] = v
		}
	}
	return data
}
