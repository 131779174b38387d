//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"corax/integration/kube/cluster"
	"corax/integration/kube/kubelet"
	"corax/integration/kube/mesh"
)

// proxied are nodes of two edges that have the same IP.
func proxied() []string { return []string{"edge-a-1", "edge-b-1"} }

func pod(node string) string { return "web-" + node }

// proxy starts real kubelets on two nodes that share their IP, and reads logs and
// runs programs there by the nodes' names.
func (d *demo) proxy(t cluster.T) {
	if err := kubelet.Missing(); err != nil {
		fmt.Fprintf(d.out, "\n  Left out: kubectl logs and exec on real kubelets: %v\n", err)
		return
	}
	fmt.Fprintf(d.out, "\n  kubectl logs and exec, by node name: %s and %s have the same IP, each behind its NAT\n\n", proxied()[0], proxied()[1])
	d.steps(t, []step{
		{"start containerd and kubelet on both", d.kubelets},
		{"the API server reaches both by the proxy", d.reachKubelets},
	})
	d.kubectl(t, "get", "pods", "-o", "custom-columns=NAME:.metadata.name,NODE:.spec.nodeName,NODE-IP:.status.hostIP,STATUS:.status.phase")
	for _, node := range proxied() {
		d.kubectl(t, "logs", pod(node))
		d.kubectl(t, "exec", pod(node), "--", "sh", "-c", "echo this is $(hostname), uid $(id -u)")
	}
}

// kubelets starts them, each with a Pod.
func (d *demo) kubelets(t cluster.T) {
	var configs []kubelet.Config
	for _, name := range proxied() {
		configs = append(configs, kubelet.Config{Cluster: d.world.Cluster, Node: d.world.Node(name)})
	}
	all := kubelet.Start(t, configs...)
	for i, name := range proxied() {
		all[i].Pod(t, pod(name), kubelet.Container{Name: "main", Command: []string{"sh", "-c", "echo hello from $(hostname); sleep 100000"}})
	}
	for i, name := range proxied() {
		all[i].WaitPod(t, pod(name))
	}
}

// reachKubelets waits until the names lead to the nodes: the hosts file of an API
// server is read again every five seconds.
func (d *demo) reachKubelets(t cluster.T) {
	for _, node := range proxied() {
		cluster.Eventually(t, mesh.Settle, "the way to "+node, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			return d.world.Cluster.Client.RESTClient().Get().AbsPath("/api/v1/nodes/" + node + "/proxy/healthz").Do(ctx).Error()
		})
	}
}
