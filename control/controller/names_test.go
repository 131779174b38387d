package controller

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"corax/control/api/v1beta1"
	"corax/control/controller/names"
	"corax/control/kube/gateway"
)

func TestNamesService(t *testing.T) {
	b := newBench(t, 0, exposedGateway("node-1"), node("node-1", "cloud", "10.0.0.1"), node("edge-1", "edge", "192.168.0.10"),
		&gateway.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "edge"}})
	hosts := func() string {
		cm := &corev1.ConfigMap{}
		b.get(cm, "kube-system", names.ConfigMapName)
		return cm.Data[names.HostsKey]
	}
	b.run(b.names, "")
	if got := hosts(); got != "10.0.0.1\tnode-1\n192.168.0.10\tedge-1\n" { // the Service has no address yet
		t.Errorf("%q", got)
	}
	b.person(func(c client.Client) error {
		return c.Patch(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: names.ServiceName}},
			client.RawPatch(types.MergePatchType, []byte(`{"spec":{"clusterIP":"10.96.0.7"}}`)))
	})
	b.run(b.names, "")
	if got := hosts(); got != "10.0.0.1\tnode-1\n10.96.0.7\tedge-1\n" {
		t.Errorf("%q", got)
	}
	// Somebody wipes the file: it comes back.
	b.person(func(c client.Client) error {
		return c.Patch(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: names.ConfigMapName}},
			client.RawPatch(types.MergePatchType, []byte(`{"data":{"tunnel-nodes":"","theirs":"1"}}`)))
	})
	b.run(b.names, "")
	if got := hosts(); !strings.Contains(got, "10.96.0.7") {
		t.Errorf("%q", got)
	}
	// No proxy endpoint is active: names lead to the nodes, the Service stays.
	b.patchGateway(func(g *gateway.Gateway) { g.Status.ActiveEndpoints = nil })
	b.run(b.names, "")
	if got := hosts(); strings.Contains(got, "10.96.0.7") || !b.get(&corev1.Service{}, "kube-system", names.ServiceName) {
		t.Errorf("%q", got)
	}
	g := &gateway.Gateway{}
	if b.get(g, "", "cloud"); g.Annotations[v1beta1.AnnotationProxyPorts] != "10250=10281,9100=10285" || g.Annotations["theirs"] != "1" {
		t.Errorf("%v", g.Annotations)
	}
	b.patchGateway(func(g *gateway.Gateway) { g.Spec.ExposeType = "" })
	b.run(b.names, "")
	if b.get(&corev1.Service{}, "kube-system", names.ServiceName) {
		t.Error("the Service is left")
	}
	if b.get(g, "", "cloud"); g.Annotations[v1beta1.AnnotationProxyPorts] != "" {
		t.Errorf("%v", g.Annotations)
	}
}

// TestNamesConnect: the Service in front of HTTP CONNECT, which the chart makes, leads
// to the fronts while there are any, and stays as it is.
func TestNamesConnect(t *testing.T) {
	made := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: names.ConnectName, UID: "c"},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.8",
			Ports: []corev1.ServicePort{{Name: "connect", Port: 10295, Protocol: corev1.ProtocolTCP}},
		},
	}
	b := newBench(t, 0, exposedGateway("node-1"), node("node-1", "cloud", "10.0.0.1"), node("node-2", "cloud", "10.0.0.2"), made)
	ends := func() string {
		e := &discoveryv1.EndpointSlice{}
		if !b.get(e, "kube-system", names.ConnectName+"-ipv4") {
			return ""
		}
		if e.Labels[discoveryv1.LabelServiceName] != names.ConnectName || e.OwnerReferences[0].UID != "c" || *e.Ports[0].Port != 10295 || *e.Ports[0].Name != "connect" {
			t.Errorf("%+v", e)
		}
		var list []string
		for _, x := range e.Endpoints {
			list = append(list, x.Addresses...)
		}
		return strings.Join(list, " ")
	}
	b.run(b.names, "")
	if got := ends(); got != "10.0.0.1" {
		t.Errorf("%q", got)
	}
	b.patchGateway(func(g *gateway.Gateway) {
		g.Status.ActiveEndpoints = exposedGateway("node-1", "node-2").Status.ActiveEndpoints
	})
	b.run(b.names, "")
	if got := ends(); got != "10.0.0.1 10.0.0.2" {
		t.Errorf("with a second front: %q", got)
	}
	b.patchGateway(func(g *gateway.Gateway) { g.Spec.ExposeType = "" })
	b.run(b.names, "")
	if got := ends(); got != "" {
		t.Errorf("without a front: %q", got)
	}
	s := &corev1.Service{}
	if !b.get(s, "kube-system", names.ConnectName) || s.Spec.ClusterIP != "10.96.0.8" || len(s.Labels) != 0 || len(s.Spec.Ports) != 1 {
		t.Errorf("it was changed: %+v", s)
	}
}
