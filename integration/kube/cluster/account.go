//go:build linux

package cluster

import (
	"context"
	"strings"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// AgentConfig returns how a Pod on a node speaks: by a token of its service
// account, given as NAMESPACE/NAME or as a name of kube-system, that is bound to
// the Pod and so names the node. Account, node and Pod are made when missing.
func (c *Cluster) AgentConfig(t T, node, account string) *rest.Config {
	t.Helper()
	namespace, name := splitAccount(account)
	ctx := t.Context()
	c.ensureNamespace(t, namespace)
	c.ensureAccount(t, namespace, name)
	if _, err := c.Client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{}); apierrors.IsNotFound(err) {
		c.AddNode(t, Node{Name: node})
	} else if err != nil {
		t.Fatalf("cluster: node %s: %v", node, err)
	}
	pods := c.Client.CoreV1().Pods(namespace)
	pod, err := pods.Get(ctx, name+"-"+node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		pod, err = pods.Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name + "-" + node},
			Spec: corev1.PodSpec{
				NodeName: node, ServiceAccountName: name, HostNetwork: true,
				Containers: []corev1.Container{{Name: "agent", Image: "none", ImagePullPolicy: corev1.PullNever}},
			},
		}, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatalf("cluster: pod of %s on %s: %v", account, node, err)
	}
	return c.tokenConfig(t, namespace, name, &authv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID})
}

// AccountConfig returns how a service account speaks by a token that is bound to
// nothing: it names no node. The account is made when missing.
func (c *Cluster) AccountConfig(t T, account string) *rest.Config {
	t.Helper()
	namespace, name := splitAccount(account)
	c.ensureNamespace(t, namespace)
	c.ensureAccount(t, namespace, name)
	return c.tokenConfig(t, namespace, name, nil)
}

func (c *Cluster) tokenConfig(t T, namespace, name string, bound *authv1.BoundObjectReference) *rest.Config {
	t.Helper()
	seconds := int64(6 * 60 * 60)
	request := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{ExpirationSeconds: &seconds, BoundObjectRef: bound}}
	got, err := c.Client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), name, request, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("cluster: token of %s/%s: %v", namespace, name, err)
	}
	cfg := c.baseConfig()
	cfg.BearerToken = got.Status.Token
	return cfg
}

func (c *Cluster) ensureNamespace(t T, name string) {
	t.Helper()
	_, err := c.Client.CoreV1().Namespaces().Create(context.WithoutCancel(t.Context()),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatalf("cluster: namespace %s: %v", name, err)
	}
}

func (c *Cluster) ensureAccount(t T, namespace, name string) {
	t.Helper()
	_, err := c.Client.CoreV1().ServiceAccounts(namespace).Create(t.Context(),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatalf("cluster: service account %s/%s: %v", namespace, name, err)
	}
}

func splitAccount(account string) (namespace, name string) {
	if namespace, name, ok := strings.Cut(account, "/"); ok {
		return namespace, name
	}
	return "kube-system", account
}
