package kube

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestSettings(t *testing.T) {
	before := []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	first := allowed{closed: true} // nothing was known before
	list := []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.2.0/24")}
	for _, tt := range []struct {
		name          string
		data          settings
		otherwise     bool // what counts for a switch that is not there
		tunnel, proxy bool
		before        allowed
		allow         []netip.Prefix
		closed        bool
		problems      []string // fields
	}{
		{name: "nothing, standalone", otherwise: true, tunnel: true, proxy: true},
		{name: "nothing, openyurt"},
		{name: "on", data: settings{keyTunnel: "true", keyProxy: "true"}, tunnel: true, proxy: true},
		{name: "off", data: settings{keyTunnel: "false", keyProxy: "false"}, otherwise: true},
		{name: "one", data: settings{keyTunnel: " True "}, tunnel: true},
		{name: "no word", data: settings{keyTunnel: "yes"}, otherwise: true, tunnel: true, proxy: true, problems: []string{keyTunnel}},
		{name: "a list", data: settings{keyAllow: "192.0.2.0/24, 100.64.0.0/10"}, allow: list},
		{name: "a bad list keeps the one before", data: settings{keyAllow: "192.0.2.0/24,x"}, before: allowed{list: before}, allow: before, problems: []string{keyAllow}},
		{name: "a bad list at first", data: settings{keyAllow: "192.0.2.0/24,x"}, before: first, closed: true, problems: []string{keyAllow}},
		{name: "a bad list where there was none", data: settings{keyAllow: "x"}, problems: []string{keyAllow}},
		{name: "a good list at first", data: settings{keyAllow: "192.0.2.0/24, 100.64.0.0/10"}, before: first, allow: list},
		{name: "no list at first", before: first},
		{name: "a list without the balancer's", data: settings{keyAllow: "192.0.2.0/24"}, allow: list[1:], problems: []string{keyAllow}},
		{name: "an empty list ends the one before", data: settings{keyAllow: ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.data.parse(Config{EnableTunnel: tt.otherwise, EnableProxy: tt.otherwise}, tt.before)
			if got.tunnel != tt.tunnel || got.proxy != tt.proxy {
				t.Errorf("tunnel %v, proxy %v, want %v, %v", got.tunnel, got.proxy, tt.tunnel, tt.proxy)
			}
			if d := cmp.Diff(tt.allow, got.allow.list, cmpopts.EquateComparable(netip.Prefix{})); d != "" {
				t.Errorf("allow list: %s", d)
			}
			if got.allow.closed != tt.closed {
				t.Errorf("closed %v", got.allow.closed)
			}
			var fields []string
			for _, p := range got.problems {
				fields = append(fields, p.Field)
			}
			if d := cmp.Diff(tt.problems, fields); d != "" {
				t.Errorf("problems: %s", d)
			}
		})
	}
}

func TestBoundAddress(t *testing.T) {
	for _, tt := range []struct {
		name, inside, public, ip, want string
		problems                       int
	}{
		{"none", "", "", "192.168.0.1", "192.168.0.1", 0},
		{"bound", "192.168.0.1", "47.1.2.3", "192.168.0.1", "47.1.2.3", 0},
		{"to another", "192.168.0.2", "47.1.2.3", "192.168.0.1", "192.168.0.1", 0},
		{"to nobody knows what", "", "47.1.2.3", "192.168.0.1", "192.168.0.1", 0},
		{"no address", "192.168.0.1", "x", "192.168.0.1", "192.168.0.1", 1},
		{"a name", "192.168.0.1", "47.1.2.3", "", "", 0},
	} {
		s := settings{keyInside: tt.inside, keyEIP: tt.public}
		b, _ := s.bound()
		if got := b.of(balancer{ip: tt.ip, port: 4500}); got.ip != tt.want || got.port != 4500 {
			t.Errorf("%s: %+v", tt.name, got)
		}
		if got := s.parse(Config{Balancers: true}, allowed{}).problems; len(got) != tt.problems {
			t.Errorf("%s: %v", tt.name, got)
		}
		if got := s.parse(Config{}, allowed{}).problems; len(got) != 0 {
			t.Errorf("%s, with a controller: %v", tt.name, got)
		}
	}
}

func TestSettingsStore(t *testing.T) {
	changes := 0
	s := newSettingsStore(func() { changes++ })
	cm := func(name, tunnel string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{keyTunnel: tunnel, "eip-id": "x"}}
	}
	s.assume(settings{keyTunnel: "kept"})
	if _, ok := s.get(); ok {
		t.Error("what is assumed counts as read")
	}
	s.unreadable()
	if d, ok := s.get(); !ok || d[keyTunnel] != "kept" {
		t.Errorf("unreadable: %v, %v; what was assumed should count", d, ok)
	}
	_ = s.Replace([]any{cm("other", "no"), cm(settingsName, "a")}, "1")
	if d, _ := s.get(); d[keyTunnel] != "a" || len(d) != 1 {
		t.Errorf("after a list: %v", d)
	}
	_ = s.Add(cm("other", "no"))
	if d, _ := s.get(); d[keyTunnel] != "a" {
		t.Errorf("another ConfigMap counted: %v", d)
	}
	_ = s.Update(cm(settingsName, "b"))
	s.unreadable()
	if d, _ := s.get(); d[keyTunnel] != "b" {
		t.Errorf("after a change: %v", d)
	}
	_ = s.Delete(cm(settingsName, "b"))
	if d, ok := s.get(); !ok || d != nil {
		t.Errorf("after it was deleted: %v, %v", d, ok)
	}
	if err := s.Update(5); err == nil {
		t.Error("a number among config maps")
	}
	if changes != 4 {
		t.Errorf("told of %d changes, want 4", changes)
	}
}
