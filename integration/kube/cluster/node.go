//go:build linux

package cluster

import (
	"context"
	"encoding/json"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Node describes a Node object. There is no kubelet behind it.
type Node struct {
	Name        string
	Labels      map[string]string
	Annotations map[string]string
	IPs         []netip.Addr // InternalIP addresses
	External    []netip.Addr // ExternalIP addresses
	Hostname    string       // empty means Name
	PodCIDRs    []netip.Prefix
	NotReady    bool
}

func (n Node) object() *corev1.Node {
	o := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: n.Labels, Annotations: n.Annotations}}
	for i, p := range n.PodCIDRs {
		if i == 0 {
			o.Spec.PodCIDR = p.Masked().String()
		}
		o.Spec.PodCIDRs = append(o.Spec.PodCIDRs, p.Masked().String())
	}
	for _, ip := range n.IPs {
		o.Status.Addresses = append(o.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip.String()})
	}
	for _, ip := range n.External {
		o.Status.Addresses = append(o.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: ip.String()})
	}
	hostname := n.Hostname
	if hostname == "" {
		hostname = n.Name
	}
	o.Status.Addresses = append(o.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: hostname})
	o.Status.Conditions = []corev1.NodeCondition{readyCondition(!n.NotReady)}
	return o
}

func readyCondition(ready bool) corev1.NodeCondition {
	now := metav1.Now()
	c := corev1.NodeCondition{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady",
		LastHeartbeatTime: now, LastTransitionTime: now,
	}
	if !ready {
		c.Status, c.Reason = corev1.ConditionUnknown, "NodeStatusUnknown"
	}
	return c
}

// AddNode creates Node objects, many at once when there are many.
func (c *Cluster) AddNode(t T, nodes ...Node) {
	t.Helper()
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(16)
	for _, n := range nodes {
		group.Go(func() error {
			_, err := c.Client.CoreV1().Nodes().Create(ctx, n.object(), metav1.CreateOptions{})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatalf("cluster: add nodes: %v", err)
	}
}

// SetReady sets a node's condition Ready: True, or Unknown as of a node whose
// kubelet is silent.
func (c *Cluster) SetReady(t T, node string, ready bool) {
	t.Helper()
	c.patchNode(t, node, "status", map[string]any{"status": map[string]any{"conditions": []any{readyCondition(ready)}}})
}

// Cordon sets or clears spec.unschedulable, as kubectl cordon does.
func (c *Cluster) Cordon(t T, node string, cordon bool) {
	t.Helper()
	c.patchNode(t, node, "", map[string]any{"spec": map[string]any{"unschedulable": cordon}})
}

// Label sets labels of a node; an empty value removes one.
func (c *Cluster) Label(t T, node string, labels map[string]string) {
	t.Helper()
	values := make(map[string]any)
	for k, v := range labels {
		values[k] = v
		if v == "" {
			values[k] = nil
		}
	}
	c.patchNode(t, node, "", map[string]any{"metadata": map[string]any{"labels": values}})
}

// DeleteNode deletes a Node object.
func (c *Cluster) DeleteNode(t T, node string) {
	t.Helper()
	if err := c.Client.CoreV1().Nodes().Delete(t.Context(), node, metav1.DeleteOptions{}); err != nil {
		t.Fatalf("cluster: delete node %s: %v", node, err)
	}
}

func (c *Cluster) patchNode(t T, node, subresource string, patch any) {
	t.Helper()
	b, err := json.Marshal(patch)
	if err != nil {
		t.Fatalf("cluster: %v", err)
	}
	var sub []string
	if subresource != "" {
		sub = []string{subresource}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = c.Client.CoreV1().Nodes().Patch(ctx, node, types.StrategicMergePatchType, b, metav1.PatchOptions{}, sub...)
	if err != nil {
		t.Fatalf("cluster: node %s: %v", node, err)
	}
}
