package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func clusterService(namespace, ips, ports string) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"Service","metadata":{"namespace":%q},"spec":{"clusterIPs":%s,"ports":%s}}`, namespace, ips, ports)
}

func endpointSlice(namespace, service, ports, endpoints string) string {
	return fmt.Sprintf(`{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"namespace":%q,"labels":{"kubernetes.io/service-name":%q}},`+
		`"ports":%s,"endpoints":%s}`, namespace, service, ports, endpoints)
}

const webPorts = `[{"name":"http","port":80,"targetPort":8080},{"name":"dns","protocol":"UDP","port":53},{"name":"x","protocol":"SCTP","port":9}]`

// servicesOf makes what two lists of documents, by name, tell.
func servicesOf(t *testing.T, serviceDocs, sliceDocs map[string]string) *services {
	t.Helper()
	s := &services{}
	var all, parts []any
	for name, doc := range serviceDocs {
		o := &serviceObject{}
		if err := json.Unmarshal([]byte(doc), o); err != nil {
			t.Fatal(err)
		}
		o.Name = name
		all = append(all, o)
	}
	for name, doc := range sliceDocs {
		o := &sliceObject{}
		if err := json.Unmarshal([]byte(doc), o); err != nil {
			t.Fatal(err)
		}
		o.Name = name
		parts = append(parts, o)
	}
	if err := errors.Join(s.serviceStore().Replace(all, ""), s.sliceStore().Replace(parts, "")); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEndpoints(t *testing.T) {
	s := servicesOf(t, map[string]string{
		"web":   clusterService("shop", `["10.96.0.9","fd00:96::9"]`, webPorts),
		"old":   `{"metadata":{"namespace":"shop"},"spec":{"clusterIP":"10.96.0.10","ports":[{"port":80}]}}`,
		"quiet": clusterService("shop", `["10.96.0.11"]`, `[{"port":80}]`),
		"head":  clusterService("shop", `["None"]`, `[{"port":80}]`),
		"odd":   clusterService("shop", `["10.96.0.12","x"]`, `[{"port":70000},{"port":"80"},{"port":81}]`),
	}, map[string]string{
		"web-1": endpointSlice("shop", "web", `[{"name":"http","port":8080},{"name":"dns","protocol":"UDP","port":5353}]`,
			`[{"addresses":["10.2.0.9"],"conditions":{"ready":true}},{"addresses":["10.2.0.10"],"conditions":{"ready":false}},{"addresses":["10.2.0.11","10.2.0.12"]},{"addresses":[]},{"addresses":["y"]}]`),
		"web-2":   endpointSlice("shop", "web", `[{"name":"http","port":8081}]`, `[{"addresses":["10.2.0.9"]},{"addresses":["10.2.0.20"]}]`),
		"web-3":   endpointSlice("shop", "web", `[{"name":"http","port":8080}]`, `[{"addresses":["10.2.0.9"]}]`),
		"web-v6":  endpointSlice("shop", "web", `[{"name":"http","port":8080}]`, `[{"addresses":["fd00:2::9"]}]`),
		"other":   endpointSlice("bank", "web", `[{"name":"http","port":8080}]`, `[{"addresses":["10.3.0.9"]}]`),
		"old-1":   endpointSlice("shop", "old", `[{"port":8080}]`, `[{"addresses":["10.2.0.30"]}]`),
		"quiet-1": endpointSlice("shop", "quiet", `[{"port":8080}]`, `[]`),
	})
	for _, tt := range []struct {
		network, at, want string
		err               error
	}{
		{"tcp", "10.96.0.9:80", "[10.2.0.9:8080 10.2.0.9:8081 10.2.0.11:8080 10.2.0.20:8081]", nil},
		{"udp", "10.96.0.9:53", "[10.2.0.9:5353 10.2.0.11:5353]", nil},
		{"tcp", "[fd00:96::9]:80", "[[fd00:2::9]:8080]", nil},
		{"tcp", "[::ffff:10.96.0.10]:80", "[10.2.0.30:8080]", nil},
		{"tcp", "10.96.0.11:80", "[]", nil},
		{"tcp", "10.96.0.12:81", "[]", nil},
		{"udp", "10.96.0.9:80", "[]", ErrNoService},
		{"tcp", "10.96.0.9:8080", "[]", ErrNoService},
		{"tcp", "10.96.0.9:9", "[]", ErrNoService},
		{"tcp", "10.96.0.12:80", "[]", ErrNoService},
		{"tcp", "10.96.0.99:80", "[]", ErrNoService},
	} {
		got, err := s.endpoints(tt.network, netip.MustParseAddrPort(tt.at))
		if fmt.Sprint(got) != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s %s: %v, %v; want %s", tt.network, tt.at, got, err, tt.want)
		}
	}
	if _, err := new(services).endpoints("tcp", netip.MustParseAddrPort("10.96.0.9:80")); !errors.Is(err, ErrUnread) {
		t.Errorf("before anything was read: %v", err)
	}
}

// TestEndpointsFollow reads Services and endpoints page by page, and follows changes.
func TestEndpointsFollow(t *testing.T) {
	f := newFakeAPI(t)
	f.put(settingsPath, "raven-cfg", configMap())
	for i := range nodePage + 5 {
		f.put(allServices, fmt.Sprintf("s%03d", i), clusterService("shop", fmt.Sprintf(`["10.96.%d.%d"]`, i/200, i%200+1), `[{"port":80}]`))
	}
	last := fmt.Sprintf("s%03d", nodePage+4)
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte((nodePage + 4) / 200), byte((nodePage+4)%200 + 1)}), 80)
	f.put(slicesPath, last+"-1", endpointSlice("shop", last, `[{"port":8080}]`, `[{"addresses":["10.2.0.9"]}]`))
	r := run(t, f, func(c *Config) { c.Services = true })
	leads := func(to string) func() bool {
		return func() bool {
			got, err := r.Endpoints("tcp", at)
			return err == nil && fmt.Sprint(got) == to
		}
	}
	eventually(t, "the last one leads to its endpoint", leads("[10.2.0.9:8080]"))
	f.put(slicesPath, last+"-2", endpointSlice("shop", last, `[{"port":8081}]`, `[{"addresses":["10.2.0.10"]}]`))
	eventually(t, "to a second one", leads("[10.2.0.9:8080 10.2.0.10:8081]"))
	f.put(slicesPath, last+"-1", endpointSlice("shop", last, `[{"port":8080}]`, `[{"addresses":["10.2.0.9"],"conditions":{"ready":false}}]`))
	eventually(t, "the first is not ready", leads("[10.2.0.10:8081]"))
	f.put(slicesPath, last+"-2", "")
	eventually(t, "the second is gone", leads("[]"))
	f.put(allServices, last, clusterService("shop", `["10.97.0.1"]`, `[{"port":80}]`))
	eventually(t, "another address", func() bool { _, err := r.Endpoints("tcp", at); return errors.Is(err, ErrNoService) })
	f.put(allServices, "s000", "")
	eventually(t, "a Service is gone", func() bool {
		_, err := r.Endpoints("tcp", netip.MustParseAddrPort("10.96.0.1:80"))
		return errors.Is(err, ErrNoService)
	})
}

// TestEndpointsForbidden: an agent without the right says so.
func TestEndpointsForbidden(t *testing.T) {
	f := newFakeAPI(t)
	f.put(settingsPath, "raven-cfg", configMap())
	f.setRefuse(slicesPath, 403)
	r := run(t, f, func(c *Config) { c.Services = true })
	eventually(t, "it says so", func() bool {
		return strings.Contains(strings.Join(r.State().Problems(), "\n"), "the EndpointSlices cannot be read")
	})
	if _, err := r.Endpoints("tcp", netip.MustParseAddrPort("10.96.0.1:80")); !errors.Is(err, ErrUnread) {
		t.Error(err)
	}
}

// TestEndpointsUnasked: nothing is read that nobody asked for.
func TestEndpointsUnasked(t *testing.T) {
	f := newFakeAPI(t)
	f.put(settingsPath, "raven-cfg", configMap())
	r := run(t, f, nil)
	r.state("connected", func(s State) bool { return s.Connected })
	if _, err := r.Endpoints("tcp", netip.MustParseAddrPort("10.96.0.1:80")); !errors.Is(err, ErrUnread) {
		t.Error(err)
	}
	if asked := append(f.did("GET "+allServices), f.did("GET "+slicesPath)...); len(asked) > 0 {
		t.Errorf("asked for %q", asked)
	}
}

func FuzzServiceObject(f *testing.F) {
	f.Add([]byte(clusterService("a", `["10.96.0.9"]`, webPorts)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s serviceObject
		if err := s.UnmarshalJSON(b); err != nil {
			t.Error(err)
		}
	})
}

func FuzzSliceObject(f *testing.F) {
	f.Add([]byte(endpointSlice("a", "b", `[{"port":80}]`, `[{"addresses":["10.2.0.9"]}]`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s sliceObject
		if err := s.UnmarshalJSON(b); err != nil {
			t.Error(err)
		}
	})
}
