package kube

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"

	"corax/control"
	"corax/control/api/v1beta1"
)

// serviceFor is a Service as Raven's controller makes it for node me's tunnel, with
// the JSON of its ports and of its ingress.
func serviceFor(gateway, ports, ingress string) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"Service","metadata":{"labels":{"raven.openyurt.io/gateway":%q,`+
		`"raven.openyurt.io/gateway-type":"tunnel","raven.openyurt.io/endpoints-name":"me"}},`+
		`"spec":{"type":"LoadBalancer","ports":%s},"status":{"loadBalancer":{"ingress":%s}}}`, gateway, ports, ingress)
}

const udp4502 = `[{"protocol":"TCP","port":10262},{"protocol":"UDP","port":4502}]`

func TestBalancerOf(t *testing.T) {
	for name, tt := range map[string]struct {
		service string
		want    balancer
	}{
		"an address":          {serviceFor("g", udp4502, `[{"ip":"203.0.113.1"}]`), balancer{ip: "203.0.113.1", port: 4502}},
		"a name":              {serviceFor("g", udp4502, `[{"hostname":"lb.example.com"}]`), balancer{host: "lb.example.com", port: 4502}},
		"a name, an address":  {serviceFor("g", udp4502, `[{"hostname":"lb.example.com"},{"ip":"2001:DB8:0::1"}]`), balancer{ip: "2001:db8::1", port: 4502}},
		"a bad one, then one": {serviceFor("g", udp4502, `[{"ip":"127.0.0.1","hostname":"-"},{"ip":"203.0.113.1"}]`), balancer{ip: "203.0.113.1", port: 4502}},
		"nothing usable":      {serviceFor("g", udp4502, `[{"ip":"x","hostname":"a b"}]`), balancer{}},
		"none yet":            {serviceFor("g", udp4502, `null`), balancer{}},
		"no UDP":              {serviceFor("g", `[{"protocol":"TCP","port":10262}]`, `[{"ip":"203.0.113.1"}]`), balancer{}},
		"another type":        {strings.Replace(serviceFor("g", udp4502, `[{"ip":"203.0.113.1"}]`), `"LoadBalancer"`, `"ClusterIP"`, 1), balancer{}},
		"being deleted": {
			strings.Replace(serviceFor("g", udp4502, `[{"ip":"203.0.113.1"}]`), `"metadata":{`, `"metadata":{"deletionTimestamp":"2026-01-02T03:04:05Z",`, 1),
			balancer{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := balancerOf(readService(t, tt.service)); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func readService(t *testing.T, doc string) *corev1.Service {
	t.Helper()
	s := new(corev1.Service)
	if err := json.Unmarshal([]byte(doc), s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestBalancerStore has two Services for one Gateway and one for another.
func TestBalancerStore(t *testing.T) {
	var got map[string]balancer
	s := newBalancerStore(func(m map[string]balancer) { got = m })
	named := func(name, gateway, ingress string) *corev1.Service {
		svc := readService(t, serviceFor(gateway, udp4502, ingress))
		svc.Name = name
		return svc
	}
	check := func(what string, err error, want map[string]balancer) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(balancer{})); d != "" {
			t.Errorf("%s: -want +got:\n%s", what, d)
		}
	}
	one := balancer{ip: "203.0.113.1", port: 4502}
	two := balancer{ip: "203.0.113.2", port: 4502}
	check("a list", s.Replace([]any{named("a", "g", `[]`), named("b", "g", `[{"ip":"203.0.113.2"}]`)}, "1"), map[string]balancer{"g": two})
	check("the first by name", s.Update(named("a", "g", `[{"ip":"203.0.113.1"}]`)), map[string]balancer{"g": one})
	check("another Gateway", s.Add(named("c", "h", `[{"ip":"203.0.113.2"}]`)), map[string]balancer{"g": one, "h": two})
	check("one deleted", s.Delete(named("a", "g", `[]`)), map[string]balancer{"g": two, "h": two})
	if err := s.Replace([]any{&corev1.ConfigMap{}}, "2"); err == nil {
		t.Error("a config map is taken for a Service")
	}
	check("a new list", s.Replace(nil, "3"), map[string]balancer{})
}

// TestPatchFromBalancer writes what the Service says into both entries.
func TestPatchFromBalancer(t *testing.T) {
	say := Entry{PublicKey: "K1", PublicIP: "192.0.2.1", PublicPort: 4500, TLSPort: 443}
	at := map[string]balancer{"g": {ip: "203.0.113.1", port: 4502}}
	named := map[string]balancer{"g": {host: "lb.example.com", port: 4502}}
	const rest = `"nodeName":"me","type":"tunnel"`
	tests := []struct {
		name      string
		balancers map[string]balancer
		entry     string // before, without rest
		want      string // after
	}{
		{"an address", at, `"underNAT":false`, `"underNAT":false,"publicIP":"203.0.113.1","publicPort":4502,"config":{"publicKey":"K1"}`},
		{"another address", at, `"publicIP":"203.0.113.9","publicPort":1`, `"publicIP":"203.0.113.1","publicPort":4502,"config":{"publicKey":"K1"}`},
		{"the fallback is left alone", at, `"config":{"corax.io/tls-port":"8"}`, `"publicIP":"203.0.113.1","publicPort":4502,"config":{"publicKey":"K1","corax.io/tls-port":"8"}`},
		{"a name", named, `"underNAT":false`, `"underNAT":false,"publicPort":4502,"config":{"publicKey":"K1","corax.io/public-host":"lb.example.com"}`},
		{"a name for an address", named, `"publicIP":"203.0.113.9"`, `"publicPort":4502,"config":{"publicKey":"K1","corax.io/public-host":"lb.example.com"}`},
		{"a name and no address", named, `"publicIP":""`, `"publicIP":"","publicPort":4502,"config":{"publicKey":"K1","corax.io/public-host":"lb.example.com"}`},
		{
			"an address counts before a name", at, `"config":{"corax.io/public-host":"lb.example.com"}`,
			`"publicIP":"203.0.113.1","publicPort":4502,"config":{"publicKey":"K1","corax.io/public-host":"lb.example.com"}`,
		},
		{"no address yet", nil, `"publicIP":"203.0.113.9","publicPort":1`, `"publicIP":"203.0.113.9","publicPort":1,"config":{"publicKey":"K1"}`},
		{"another Gateway's", map[string]balancer{"h": at["g"]}, `"underNAT":false`, `"underNAT":false,"config":{"publicKey":"K1"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			both := func(fields string) string {
				tunnel := `{` + rest + `,` + fields + `}`
				doc := gatewayWith(tunnel, strings.Replace(tunnel, `"tunnel"`, `"proxy"`, 1))
				return strings.Replace(doc, `"later":1`, `"exposeType":"LoadBalancer"`, 1)
			}
			write := func(doc string) string {
				t.Helper()
				var d document
				if err := json.Unmarshal([]byte(doc), &d); err != nil {
					t.Fatal(err)
				}
				b, err := json.Marshal(patch(d, "me", say, tt.balancers))
				if err != nil {
					t.Fatal(err)
				}
				return applied(t, doc, string(b))
			}
			after := write(both(tt.entry))
			if !jsonpatch.Equal([]byte(after), []byte(both(tt.want))) {
				t.Errorf("got  %s\nwant %s", after, both(tt.want))
			}
			var o object
			if err := json.Unmarshal([]byte(after), &o); err != nil {
				t.Fatal(err)
			}
			if !stands(&o.gateway, "me", say, tt.balancers) {
				t.Errorf("there is something left to write in %s", after)
			}
		})
	}
	// A Gateway that is not behind a balancer has the agent's own values.
	doc := gatewayWith(`{"nodeName":"me","type":"tunnel"}`)
	var d document
	if err := json.Unmarshal([]byte(doc), &d); err != nil {
		t.Fatal(err)
	}
	if d2 := cmp.Diff(patch(d, "me", say, nil), patch(d, "me", say, at)); d2 != "" {
		t.Errorf("a balancer changes what is written to a Gateway without one: %s", d2)
	}
}

// TestWritesTheBalancersAddress runs a Client through the life of its Service.
func TestWritesTheBalancersAddress(t *testing.T) {
	f := newFakeAPI(t)
	f.put(gatewaysPath, "a", strings.Replace(domainA, `"spec":{`, `"spec":{"exposeType":"LoadBalancer",`, 1))
	f.put(servicesPath, "x-raven-tunnel-svc-a-1", serviceFor("a", udp4502, `[]`))
	r := run(t, f, func(c *Config) { c.Balancers = true })
	r.Publish(Entry{PublicKey: "K1", TLSPort: 443})
	mine := func(s control.Snapshot) v1beta1.Endpoint {
		if len(s.Gateways) == 0 || len(s.Gateways[0].Spec.Endpoints) == 0 {
			return v1beta1.Endpoint{}
		}
		return s.Gateways[0].Spec.Endpoints[0]
	}
	r.next("the key and no address", func(s control.Snapshot) bool {
		e := mine(s)
		return e.Config["publicKey"] == "K1" && e.PublicIP == "" && e.PublicPort == 0
	})
	want := "GET " + servicesPath + " resourceVersion=0 labelSelector=" + v1beta1.LabelEndpointsName + "=me," + v1beta1.LabelGatewayType + "=tunnel"
	if d := cmp.Diff([]string{want}, f.did("GET "+servicesPath+" resourceVersion")); d != "" {
		t.Error(d)
	}
	r.stop()

	// A start later, so that nothing waits for the time between two writes.
	f.put(servicesPath, "x-raven-tunnel-svc-a-1", serviceFor("a", udp4502, `[{"ip":"203.0.113.1"}]`))
	r = run(t, f, func(c *Config) { c.Balancers = true })
	r.Publish(Entry{PublicKey: "K1", TLSPort: 443})
	r.next("the address", func(s control.Snapshot) bool {
		e := mine(s)
		return e.PublicIP == "203.0.113.1" && e.PublicPort == 4502 && e.Config["corax.io/tls-port"] == ""
	})
	r.stop()

	before := f.get(gatewaysPath, "a")
	f.put(servicesPath, "x-raven-tunnel-svc-a-1", "")
	r = run(t, f, func(c *Config) { c.Balancers = true })
	r.Publish(Entry{PublicKey: "K2"})
	r.next("the next key, and the address of before", func(s control.Snapshot) bool {
		e := mine(s)
		return e.Config["publicKey"] == "K2" && e.PublicIP == "203.0.113.1" && e.PublicPort == 4502
	})
	if after := f.get(gatewaysPath, "a"); after == before {
		t.Error("nothing was written")
	}
}

// TestSeesTheBalancerItGets has the Service made, and given its address, while the
// Client runs.
func TestSeesTheBalancerItGets(t *testing.T) {
	f := newFakeAPI(t)
	f.put(gatewaysPath, "a", strings.Replace(domainA, `"spec":{`, `"spec":{"exposeType":"LoadBalancer",`, 1))
	r := run(t, f, func(c *Config) { c.Balancers = true })
	r.Publish(Entry{TLSPort: 443}) // nothing to write until there is an address
	r.next("a Gateway", some)
	f.put(servicesPath, "s", serviceFor("a", udp4502, `[]`))
	f.put(servicesPath, "s", serviceFor("a", udp4502, `[{"hostname":"lb.example.com"}]`))
	r.next("the name", func(s control.Snapshot) bool {
		e := s.Gateways[0].Spec.Endpoints[0]
		return e.PublicPort == 4502 && e.Config["corax.io/public-host"] == "lb.example.com"
	})
}

// TestReadsNoServices: with our controller agents have no right to, and no use.
func TestReadsNoServices(t *testing.T) {
	f := newFakeAPI(t)
	f.put(gatewaysPath, "a", domainA)
	for name, change := range map[string]func(*Config){
		"not asked for":              nil,
		"a name too long for labels": func(c *Config) { c.Balancers, c.Node = true, strings.Repeat("a", 64) },
	} {
		r := run(t, f, change)
		r.next("a Gateway", some)
		r.stop()
		if got := f.did("GET " + servicesPath); len(got) != 0 {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestForbiddenServicesAreAProblem(t *testing.T) {
	f := newFakeAPI(t)
	f.put(gatewaysPath, "a", domainA)
	f.setRefuse(servicesPath, 403)
	r := run(t, f, func(c *Config) { c.Balancers = true })
	r.Publish(Entry{PublicKey: "K1"})
	r.state("the entry written", func(s State) bool { return !s.Written.IsZero() })
	s := r.state("told", func(s State) bool { return s.BalancersErr != "" })
	if ps := s.Problems(); len(ps) != 1 || !strings.Contains(ps[0], "load balancers") {
		t.Errorf("problems %q", ps)
	}
	f.setRefuse(servicesPath, 0)
	r.state("mended", func(s State) bool { return s.BalancersErr == "" && len(s.Problems()) == 0 })
}
