package kube

import (
	"net/netip"
	"testing"
	"time"
)

func TestAffinity(t *testing.T) {
	doc := func(ip, more string) string {
		return `{"metadata":{"namespace":"shop"},"spec":{"clusterIP":"` + ip + `","ports":[{"port":80}]` + more + `}}`
	}
	s := servicesOf(t, map[string]string{
		"none":    doc("10.96.0.1", ""),
		"said":    doc("10.96.0.2", `,"sessionAffinity":"None","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":5}}`),
		"default": doc("10.96.0.3", `,"sessionAffinity":"ClientIP"`),
		"minute":  doc("10.96.0.4", `,"sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":60}}`),
		"day":     doc("10.96.0.5", `,"sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":86400}}`),
		"long":    doc("10.96.0.6", `,"sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":86401}}`),
		"odd":     doc("10.96.0.7", `,"sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":"x"}}`),
		"null":    doc("10.96.0.8", `,"sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":null}`),
		"number":  doc("10.96.0.9", `,"sessionAffinity":1`),
	}, nil)
	for _, tt := range []struct {
		network, at string
		want        time.Duration
	}{
		{"tcp", "10.96.0.1:80", 0},
		{"tcp", "10.96.0.2:80", 0},
		{"tcp", "10.96.0.3:80", 3 * time.Hour},
		{"tcp", "10.96.0.4:80", time.Minute},
		{"tcp", "[::ffff:10.96.0.4]:80", time.Minute},
		{"udp", "10.96.0.4:80", 0},
		{"tcp", "10.96.0.4:81", 0},
		{"tcp", "10.96.0.5:80", 24 * time.Hour},
		{"tcp", "10.96.0.6:80", 3 * time.Hour},
		{"tcp", "10.96.0.7:80", 3 * time.Hour},
		{"tcp", "10.96.0.8:80", 3 * time.Hour},
		{"tcp", "10.96.0.9:80", 0},
		{"tcp", "10.96.0.99:80", 0},
	} {
		if got := s.affinity(tt.network, netip.MustParseAddrPort(tt.at)); got != tt.want {
			t.Errorf("%s %s: %v, want %v", tt.network, tt.at, got, tt.want)
		}
	}
	if got := new(services).affinity("tcp", netip.MustParseAddrPort("10.96.0.4:80")); got != 0 {
		t.Errorf("before anything was read: %v", got)
	}
}
