package gateway_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"

	"corax/control/api/v1beta1"
	"corax/control/kube/gateway"
)

// full is a Gateway with every field set.
func full() *gateway.Gateway {
	e := v1beta1.Endpoint{
		NodeName: "n1", Type: v1beta1.TypeTunnel, Port: 4500, UnderNAT: true, NATType: v1beta1.NATSymmetric,
		PublicIP: "192.0.2.1", PublicPort: 4501, Config: map[string]string{"a": "b"},
	}
	return &gateway.Gateway{
		TypeMeta: metav1.TypeMeta{APIVersion: v1beta1.APIVersion, Kind: v1beta1.Kind},
		ObjectMeta: metav1.ObjectMeta{
			Name: "edge-a", Labels: map[string]string{"l": "1"}, Annotations: map[string]string{"a": "1"},
			UID: "u", ResourceVersion: "7", Generation: 3, Finalizers: []string{"f"},
		},
		Spec: v1beta1.GatewaySpec{
			NodeSelector: &v1beta1.LabelSelector{
				MatchLabels:      map[string]string{"x": "y"},
				MatchExpressions: []v1beta1.LabelSelectorRequirement{{Key: "k", Operator: "In", Values: []string{"v"}}},
			},
			ProxyConfig:  &v1beta1.ProxyConfiguration{Replicas: 1, ProxyHTTPPort: "1", ProxyHTTPSPort: "2"},
			TunnelConfig: &v1beta1.TunnelConfiguration{Replicas: 2},
			Endpoints:    []v1beta1.Endpoint{e}, ExposeType: v1beta1.ExposePublicIP,
		},
		Status: gateway.Status{
			GatewayStatus: v1beta1.GatewayStatus{
				Nodes:           []v1beta1.NodeInfo{{NodeName: "n1", PrivateIP: "10.0.0.1", Subnets: []string{"10.1.0.0/24"}}},
				ActiveEndpoints: []v1beta1.Endpoint{e},
			},
			Conditions: []metav1.Condition{{Type: "Ready", Status: "True", Reason: "R", LastTransitionTime: metav1.NewTime(time.Unix(1, 0))}},
			Summary:    &gateway.Summary{Active: "n1", Expose: "PublicIP", Nodes: 1, Ready: "1/1"},
		},
	}
}

func TestDeepCopySharesNothing(t *testing.T) {
	g := full()
	c := g.DeepCopyObject().(*gateway.Gateway)
	if d := cmp.Diff(g, c); d != "" {
		t.Fatalf("the copy differs:\n%s", d)
	}
	before, _ := json.Marshal(g)
	c.Labels["l"], c.Annotations["a"], c.Finalizers[0] = "2", "2", "2"
	c.Spec.NodeSelector.MatchLabels["x"] = "z"
	c.Spec.NodeSelector.MatchExpressions[0].Values[0] = "z"
	c.Spec.ProxyConfig.Replicas, c.Spec.TunnelConfig.Replicas = 9, 9
	c.Spec.Endpoints[0].Config["a"] = "z"
	c.Status.Nodes[0].Subnets[0] = "z"
	c.Status.ActiveEndpoints[0].Config["a"] = "z"
	c.Status.Conditions[0].Status, c.Status.Summary.Active = "False", "z"
	if after, _ := json.Marshal(g); string(after) != string(before) {
		t.Errorf("writing to the copy changed the original:\n%s\n%s", before, after)
	}
	l := &gateway.GatewayList{Items: []gateway.Gateway{*g}}
	k := l.DeepCopyObject().(*gateway.GatewayList)
	k.Items[0].Labels["l"] = "2"
	if l.Items[0].Labels["l"] != "1" {
		t.Error("the lists share their items")
	}
}

func TestPlainRoundTrip(t *testing.T) {
	g := full()
	p := g.Plain()
	back := gateway.FromPlain(p)
	want := g.DeepCopy()
	want.Finalizers, want.Status.Conditions, want.Status.Summary = nil, nil, nil
	if d := cmp.Diff(want, back); d != "" {
		t.Error(d)
	}
}

func TestSchemeReadsAndWrites(t *testing.T) {
	s := runtime.NewScheme()
	if err := gateway.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(full())
	if err != nil {
		t.Fatal(err)
	}
	got, err := runtime.Decode(serializer.NewCodecFactory(s).UniversalDeserializer(), b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(full(), got); d != "" {
		t.Error(d)
	}
	var doc map[string]map[string]any
	_ = json.Unmarshal(b, &doc)
	for _, field := range []string{"nodes", "activeEndpoints", "conditions", "summary"} {
		if doc["status"][field] == nil {
			t.Errorf("status has no field %s: %s", field, b)
		}
	}
}

func TestMergePatch(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*gateway.Gateway)
		want   string
	}{
		{name: "nothing", change: func(*gateway.Gateway) {}},
		{name: "a label", change: func(g *gateway.Gateway) { g.Labels["m"] = "2" }, want: `{"metadata":{"labels":{"m":"2"}}}`},
		{name: "a number", change: func(g *gateway.Gateway) { g.Spec.TunnelConfig.Replicas = 3 }, want: `{"spec":{"tunnelConfig":{"Replicas":3}}}`},
		{name: "gone", change: func(g *gateway.Gateway) { g.Spec.ExposeType = "" }, want: `{"spec":{"exposeType":null}}`},
		{
			name: "a list goes with the version", change: func(g *gateway.Gateway) { g.Spec.Endpoints = nil },
			want: `{"metadata":{"resourceVersion":"7"},"spec":{"endpoints":null}}`,
		},
		{
			name: "an item", change: func(g *gateway.Gateway) { g.Status.Nodes[0].PrivateIP = "10.0.0.2" },
			want: `{"metadata":{"resourceVersion":"7"},"status":{"nodes":[{"nodeName":"n1","privateIP":"10.0.0.2","subnets":["10.1.0.0/24"]}]}}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := full()
			tt.change(is)
			got, err := gateway.MergePatch(full(), is)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestUnknownFieldsSurvive patches an object that has fields of a later version.
func TestUnknownFieldsSurvive(t *testing.T) {
	server := `{"metadata":{"name":"a"},"spec":{"later":{"x":1},"exposeType":"PublicIP"},"status":{"later":true}}`
	was := new(gateway.Gateway)
	if err := json.Unmarshal([]byte(server), was); err != nil {
		t.Fatal(err)
	}
	is := was.DeepCopy()
	is.Spec.ExposeType = ""
	is.Labels = map[string]string{"l": "1"}
	patch, err := gateway.MergePatch(was, is)
	if err != nil {
		t.Fatal(err)
	}
	got, err := jsonpatch.MergePatch([]byte(server), patch)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"metadata":{"name":"a","labels":{"l":"1"}},"spec":{"later":{"x":1}},"status":{"later":true}}`
	if !jsonpatch.Equal(got, []byte(want)) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestHalves(t *testing.T) {
	is := full()
	is.Spec.ExposeType, is.Status.Summary.Active = "", "n2"
	spec, err := gateway.SpecPatch(full(), is)
	if err != nil || string(spec) != `{"spec":{"exposeType":null}}` {
		t.Errorf("spec: %s, %v", spec, err)
	}
	status, err := gateway.StatusPatch(full(), is)
	if err != nil || string(status) != `{"status":{"summary":{"active":"n2"}}}` {
		t.Errorf("status: %s, %v", status, err)
	}
}

func TestOps(t *testing.T) {
	ops := []gateway.Op{
		{Op: "test", Path: gateway.Pointer("spec", "endpoints", 0, "config", "corax.io/tls~port")},
		{Op: "remove", Path: gateway.Pointer("a")},
	}
	got, err := json.Marshal(ops)
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"op":"test","path":"/spec/endpoints/0/config/corax.io~1tls~0port","value":null},{"op":"remove","path":"/a"}]`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
