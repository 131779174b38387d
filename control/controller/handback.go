package controller

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"corax/control/api/v1beta1"
	"corax/control/controller/names"
)

// handBackHosts lets every name of a hosts file that somebody else made lead to the
// node itself again, when it leads to our Service. One that we made is deleted with
// the rest.
func (r *removal) handBackHosts(ctx context.Context) error {
	cm := &corev1.ConfigMap{}
	err := r.client.Get(ctx, client.ObjectKey{Namespace: r.cfg.Namespace, Name: names.ConfigMapName}, cm)
	if err != nil || cm.Labels[v1beta1.LabelManagedBy] == v1beta1.ManagedBy {
		return client.IgnoreNotFound(err)
	}
	s := &corev1.Service{}
	err = r.client.Get(ctx, client.ObjectKey{Namespace: r.cfg.Namespace, Name: names.ServiceName}, s)
	if err != nil || s.Labels[v1beta1.LabelManagedBy] != v1beta1.ManagedBy || !leadsTo(cm.Data[names.HostsKey], names.ClusterIP(s)) {
		return client.IgnoreNotFound(err)
	}
	var nodes corev1.NodeList
	if err := r.client.List(ctx, &nodes); err != nil {
		return err
	}
	list := make([]names.Node, 0, len(nodes.Items))
	for i := range nodes.Items {
		list = append(list, namedNode(&nodes.Items[i], true))
	}
	text, problems := names.Hosts(list, netip.Addr{})
	for _, p := range problems {
		r.log.Warn("names need attention", "why", p)
	}
	err = r.patch(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: cm.Namespace, Name: cm.Name}}, map[string]any{
		// Somebody may have written it since.
		"metadata": map[string]any{"resourceVersion": cm.ResourceVersion},
		"data":     map[string]any{names.HostsKey: text},
	})
	if err != nil {
		return errors.Join(errors.New("names of nodes still lead to a Service of ours"), err)
	}
	r.log.Info("the names of nodes lead to the nodes themselves again", "configmap", cm.Name)
	return nil
}

// leadsTo reports whether a line of a hosts file has the address.
func leadsTo(text string, addr netip.Addr) bool {
	if !addr.IsValid() {
		return false
	}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == addr.String() {
			return true
		}
	}
	return false
}
