//go:build linux

package kubelet

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/integration/kube/cluster"
)

// Container is one of a Pod.
type Container struct {
	Name    string
	Command []string
	Stdin   bool // for attach
}

// Pod creates a Pod in namespace default on the kubelet's node, in the network of
// that, and returns at once; see WaitPod.
func (k *Kubelet) Pod(t cluster.T, name string, containers ...Container) {
	t.Helper()
	accounts := k.cfg.Cluster.Client.CoreV1().ServiceAccounts("default")
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := accounts.Create(t.Context(), account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatalf("kubelet: %v", err)
	}
	no, at := false, int64(0)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			NodeName: k.cfg.Node.Name, HostNetwork: true, AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
			TerminationGracePeriodSeconds: &at,
		},
	}
	for _, c := range containers {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
			Name: c.Name, Image: Image, ImagePullPolicy: corev1.PullNever, Command: c.Command, Stdin: c.Stdin,
		})
	}
	if _, err := k.cfg.Cluster.Client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatalf("kubelet: pod %s: %v", name, err)
	}
}

// WaitPod waits until all containers of a Pod run.
func (k *Kubelet) WaitPod(t cluster.T, name string) {
	t.Helper()
	cluster.Eventually(t, startWithin, "pod "+name, func(ctx context.Context) error {
		pod, err := k.cfg.Cluster.Client.CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if pod.Status.Phase != corev1.PodRunning {
			return fmt.Errorf("it is %s: %v", pod.Status.Phase, pod.Status.ContainerStatuses)
		}
		for _, s := range pod.Status.ContainerStatuses {
			if s.State.Running == nil {
				return fmt.Errorf("container %s: %v", s.Name, s.State)
			}
		}
		return nil
	})
}
