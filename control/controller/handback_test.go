package controller

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

func TestHandBackHosts(t *testing.T) {
	meta := func(name, managed string) metav1.ObjectMeta {
		m := metav1.ObjectMeta{Namespace: "kube-system", Name: name}
		if managed != "" {
			m.Labels = map[string]string{"app.kubernetes.io/managed-by": managed}
		}
		return m
	}
	service := func(managed string) client.Object {
		return &corev1.Service{ObjectMeta: meta("x-raven-proxy-internal-svc", managed), Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.7"}}
	}
	hosts := func(managed, text string) client.Object {
		return &corev1.ConfigMap{ObjectMeta: meta("edge-tunnel-nodes", managed), Data: map[string]string{"tunnel-nodes": text, "theirs": "1"}}
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "edge-1"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: "192.168.0.10"}, {Type: corev1.NodeHostName, Address: "box"},
	}}}
	const us = "corax-controller"
	const led, own = "10.96.0.7\tedge-1\n10.96.0.7\tbox\n", "192.168.0.10\tbox\n192.168.0.10\tedge-1\n"
	for _, tt := range []struct {
		name    string
		objects []client.Object
		want    string // "": there is no ConfigMap
		service bool
	}{
		{"adopted, and led to our Service", []client.Object{hosts("", led), service(us), node}, own, false},
		{"ours", []client.Object{hosts(us, led), service(us), node}, "", false},
		{"leads elsewhere", []client.Object{hosts("", "10.96.0.70\tedge-1\n"), service(us), node}, "10.96.0.70\tedge-1\n", false},
		{"another's Service", []client.Object{hosts("", led), service("else"), node}, led, true},
		{"no ConfigMap", []client.Object{service(us), node}, "", false},
		{"no Service", []client.Object{hosts("", led), node}, led, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			scheme, err := newScheme()
			if err != nil {
				t.Fatal(err)
			}
			c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(copies(tt.objects)...).Build()
			cfg, err := Config{}.withDefaults()
			if err != nil {
				t.Fatal(err)
			}
			r := &removal{client: c, cfg: cfg, log: slog.New(slog.DiscardHandler)}
			if err := r.all(t.Context()); err != nil {
				t.Fatal(err)
			}
			got := &corev1.ConfigMap{}
			err = c.Get(t.Context(), client.ObjectKey{Namespace: "kube-system", Name: "edge-tunnel-nodes"}, got)
			if client.IgnoreNotFound(err) != nil || got.Data["tunnel-nodes"] != tt.want || err == nil && got.Data["theirs"] != "1" {
				t.Errorf("%v: %q", err, got.Data)
			}
			err = c.Get(t.Context(), client.ObjectKey{Namespace: "kube-system", Name: "x-raven-proxy-internal-svc"}, &corev1.Service{})
			if there := !apierrors.IsNotFound(err); there != tt.service {
				t.Errorf("the Service is there: %v", there)
			}
		})
	}
}

// TestHandBackFirst sees to it that the Service stays while names lead to it.
func TestHandBackFirst(t *testing.T) {
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	label := map[string]string{"app.kubernetes.io/managed-by": "corax-controller"}
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "x-raven-proxy-internal-svc", Labels: label},
		Spec:       corev1.ServiceSpec{ClusterIP: "10.96.0.7"},
	}
	cm := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "edge-tunnel-nodes"},
		Data:       map[string]string{"tunnel-nodes": "10.96.0.7\tedge-1\n"},
	}
	refused := errors.New("refused by the test")
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(s, cm).WithInterceptorFuncs(interceptor.Funcs{
		Patch: func(context.Context, client.WithWatch, client.Object, client.Patch, ...client.PatchOption) error {
			return refused
		},
	}).Build()
	cfg, err := Config{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	r := &removal{client: c, cfg: cfg, log: slog.New(slog.DiscardHandler)}
	if err := r.all(t.Context()); !errors.Is(err, refused) {
		t.Errorf("error %v", err)
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(s), &corev1.Service{}); err != nil {
		t.Errorf("the Service: %v", err)
	}
}

func copies(list []client.Object) []client.Object {
	var out []client.Object
	for _, o := range list {
		if c, ok := runtime.Object(o).DeepCopyObject().(client.Object); ok {
			out = append(out, c)
		}
	}
	return out
}
