package exposure_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/control/controller/exposure"
)

func TestParseSettings(t *testing.T) {
	for _, tt := range []struct {
		name          string
		data          map[string]string
		tunnel, proxy bool
		warnings      int
		refused       string
	}{
		{"missing", nil, true, true, 0, ""},
		{"empty", map[string]string{}, true, true, 0, ""},
		{"as the owner's documents show it", map[string]string{
			"acl-id": "acl-xxx", "acl-entry": "", "eip-id": "eip-xxx", "eip-ip": "47.1.1.47", "enable-l3-tunnel": "false",
			"enable-l7-proxy": "true", "loadbalancer-id": "lb-xxx", "loadbalancer-ip": "192.168.0.1",
		}, false, true, 0, ""},
		{"case and spaces", map[string]string{"enable-l3-tunnel": " False ", "enable-l7-proxy": "TRUE"}, false, true, 0, ""},
		{"no switch", map[string]string{"enable-l3-tunnel": "no"}, true, true, 1, ""},
		{"bad address", map[string]string{"eip-ip": "47.XX.XX.47"}, true, true, 1, ""},
		{"bad list", map[string]string{"acl-entry": "10.0.0.0/8,x"}, true, true, 0, "entry 2"},
		{"list without the balancer", map[string]string{"acl-entry": "10.0.0.0/8"}, true, true, 1, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var cm *corev1.ConfigMap
			if tt.data != nil {
				cm = &corev1.ConfigMap{Data: tt.data}
			}
			s := exposure.ParseSettings(cm)
			if s.Tunnel != tt.tunnel || s.Proxy != tt.proxy || len(s.Warnings) != tt.warnings ||
				!strings.Contains(s.Refused, tt.refused) || (s.Refused == "") != (tt.refused == "") {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestRecord(t *testing.T) {
	service := func(name, id, ip string, age int64) corev1.Service {
		s := ravens("x-raven-tunnel-svc-cloud-" + name)
		s.CreationTimestamp = metav1.Unix(1e9-age, 0)
		s.Labels["app.kubernetes.io/managed-by"] = "corax-controller"
		s.Labels["service.k8s.alibaba/loadbalancer-id"] = id
		if ip != "" {
			cloud(&s, ip, "")
		}
		return s
	}
	const id, ip = "loadbalancer-id", "loadbalancer-ip"
	note := func(a, b string) map[string]string {
		return map[string]string{"corax.io/balancer": `{"loadbalancer-id":"` + a + `","loadbalancer-ip":"` + b + `"}`}
	}
	for _, tt := range []struct {
		name     string
		data     map[string]string
		notes    map[string]string
		services []corev1.Service
		want     map[string]string
		wantNote map[string]string
	}{
		{
			"first",
			map[string]string{"acl-id": "x"},
			nil,
			[]corev1.Service{service("1", "lb-1", "1.1.1.1", 0), service("2", "lb-2", "2.2.2.2", 9), service("3", "lb-3", "", 99)},
			map[string]string{"acl-id": "x", id: "lb-2", ip: "2.2.2.2"},
			note("lb-2", "2.2.2.2"),
		},
		{
			"stays with the one that is there",
			map[string]string{id: "lb-1", ip: "1.1.1.1"},
			note("lb-1", "1.1.1.1"),
			[]corev1.Service{service("1", "lb-1", "1.1.1.1", 0), service("2", "lb-2", "2.2.2.2", 9)},
			map[string]string{id: "lb-1", ip: "1.1.1.1"},
			note("lb-1", "1.1.1.1"),
		},
		{
			"moves on",
			map[string]string{id: "lb-1", ip: "1.1.1.1"},
			note("lb-1", "1.1.1.1"),
			[]corev1.Service{service("2", "lb-2", "2.2.2.2", 9)},
			map[string]string{id: "lb-2", ip: "2.2.2.2"},
			note("lb-2", "2.2.2.2"),
		},
		{
			"goes",
			map[string]string{id: "lb-1", ip: "1.1.1.1"},
			note("lb-1", "1.1.1.1"), nil,
			map[string]string{id: "", ip: ""},
			nil,
		},
		{
			"a person's",
			map[string]string{id: "lb-9", ip: "9.9.9.9"},
			nil,
			[]corev1.Service{service("1", "lb-9", "1.1.1.1", 0)},
			map[string]string{id: "lb-9", ip: "9.9.9.9"},
			nil,
		},
		{
			"a person changed one",
			map[string]string{id: "lb-9", ip: "1.1.1.1"},
			note("lb-1", "1.1.1.1"),
			[]corev1.Service{service("1", "lb-1", "1.1.1.1", 0)},
			map[string]string{id: "lb-9", ip: "1.1.1.1"},
			map[string]string{"corax.io/balancer": `{"loadbalancer-ip":"1.1.1.1"}`},
		},
		{
			"another cloud", nil, nil,
			[]corev1.Service{service("1", "", "1.1.1.1", 0)},
			map[string]string{ip: "1.1.1.1"},
			map[string]string{"corax.io/balancer": `{"loadbalancer-ip":"1.1.1.1"}`},
		},
		{"nothing", map[string]string{"acl-id": "x"}, nil, nil, map[string]string{"acl-id": "x"}, nil},
		{
			"a note that cannot be read",
			map[string]string{id: "lb-1"},
			map[string]string{"corax.io/balancer": "{"},
			nil,
			map[string]string{id: "lb-1"},
			map[string]string{"corax.io/balancer": "{"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Annotations: tt.notes}, Data: tt.data}
			was := cm.DeepCopy()
			got := exposure.Record(cm, tt.services)
			if diff := cmp.Diff(was, cm); diff != "" {
				t.Fatalf("the argument was changed: %s", diff)
			}
			if diff := cmp.Diff(tt.want, got.Data); diff != "" {
				t.Error(diff)
			}
			if len(tt.wantNote)+len(got.Annotations) > 0 {
				if diff := cmp.Diff(tt.wantNote, got.Annotations); diff != "" {
					t.Error(diff)
				}
			}
			if again := exposure.Record(got, tt.services); again != got {
				t.Errorf("it writes again: %v", again)
			}
		})
	}
}
