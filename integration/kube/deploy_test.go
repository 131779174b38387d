//go:build linux

package kube_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"corax/control/controller"
	"corax/integration/kube/cluster"
)

// Folders of manifests in the checkout.
const (
	netAdmin     = "deploy/manifests/profiles/net-admin"
	unprivileged = "deploy/manifests/profiles/unprivileged"
	openyurt     = "deploy/manifests/presets/openyurt"
	uninstall    = "deploy/manifests/uninstall"
)

// TestDeployApplies applies everything that is shipped, looks whether the API
// server understands the policies, and deletes it again.
func TestDeployApplies(t *testing.T) {
	c := cluster.Start(t, cluster.Options{Controllers: []string{"validatingadmissionpolicy-status-controller", "namespace-controller"}})
	c.Apply(t, crd)
	for _, dirs := range [][]string{{netAdmin, uninstall}, {unprivileged}, {openyurt}} {
		before := everything(t, c)
		c.Apply(t, dirs...)
		cluster.Eventually(t, time.Minute, "policies checked", func(ctx context.Context) error { return policiesFit(ctx, c) })
		for _, dir := range slices.Backward(dirs) {
			if out, err := c.Kubectl(t, nil, "delete", "--wait=false", "-k", "../../"+dir); err != nil {
				t.Errorf("delete %s: %v\n%s", dir, err, out)
			}
		}
		cluster.Eventually(t, time.Minute, "everything deleted", func(context.Context) error {
			left := slices.DeleteFunc(everything(t, c), func(s string) bool { return slices.Contains(before, s) })
			if len(left) > 0 {
				return fmt.Errorf("left: %q", left)
			}
			return nil
		})
	}
}

// policiesFit reports policies that the API server has not checked, or whose
// expressions do not fit the types of what they judge.
func policiesFit(ctx context.Context, c *cluster.Cluster) error {
	list, err := c.Client.AdmissionregistrationV1().ValidatingAdmissionPolicies().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, p := range list.Items {
		if p.Status.ObservedGeneration != p.Generation || p.Status.TypeChecking == nil {
			return fmt.Errorf("%s has not been checked", p.Name)
		}
		if w := p.Status.TypeChecking.ExpressionWarnings; len(w) > 0 {
			return fmt.Errorf("%s: %s: %s", p.Name, w[0].FieldRef, w[0].Warning)
		}
	}
	return nil
}

// everything names what a cluster has of the kinds that we ship.
func everything(t *testing.T, c *cluster.Cluster) []string {
	t.Helper()
	out, err := c.Kubectl(t, nil, "get", "-A", "-o", "name", strings.Join([]string{
		"namespaces", "serviceaccounts", "clusterroles", "clusterrolebindings", "roles", "rolebindings", "configmaps", "secrets",
		"services", "daemonsets", "deployments", "jobs", "poddisruptionbudgets", "leases", "endpointslices",
		"validatingadmissionpolicies", "validatingadmissionpolicybindings",
	}, ","))
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	names := strings.Fields(string(out))
	// Those that the API server makes of itself, when it likes.
	return slices.DeleteFunc(names, func(s string) bool {
		return strings.Contains(s, "apiserver-") || strings.Contains(s, "kube-root-ca") || strings.Contains(s, "kube-apiserver-legacy")
	})
}

// TestDeployPodSecurity has the API server judge the pods: the unprivileged ones
// the controller's and those of the examples pass the strictest level, the others need
// the host.
func TestDeployPodSecurity(t *testing.T) {
	c := cluster.Start(t, cluster.Options{})
	c.ApplyYAML(t, `{apiVersion: v1, kind: Namespace, metadata: {name: strict, labels: {pod-security.kubernetes.io/enforce: restricted}}}`)
	for _, account := range []string{"corax-agent", "corax-hub", "corax-controller"} {
		c.AccountConfig(t, "strict/"+account)
	}
	for _, test := range []struct {
		dir, kind, name string
		passes          bool
	}{
		{unprivileged, "daemonset", "corax-agent", true},
		{unprivileged, "daemonset", "corax-hub", true},
		{unprivileged, "deployment", "corax-controller", true},
		{netAdmin, "daemonset", "corax-agent", false},
		{netAdmin, "daemonset", "corax-hub", false},
		{"deploy/examples/kubernetes/deployment.yaml", "deployment", "corax", true},
		{"deploy/examples/kubernetes/sidecar.yaml", "deployment", "shop", true},
	} {
		namespace := "kube-system"
		if strings.Contains(test.dir, "examples") {
			namespace = "strict"
			if out, err := c.Kubectl(t, nil, "apply", "--validate=strict", "-n", namespace, "-f", "../../"+test.dir); err != nil || strings.Contains(string(out), "Warning") {
				t.Fatalf("%s: %v\n%s", test.dir, err, out)
			}
			c.AccountConfig(t, "strict/default")
		} else {
			c.Apply(t, test.dir)
		}
		var spec corev1.PodSpec
		switch test.kind {
		case "daemonset":
			ds, err := c.Client.AppsV1().DaemonSets(namespace).Get(t.Context(), test.name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			spec = ds.Spec.Template.Spec
		case "deployment":
			d, err := c.Client.AppsV1().Deployments(namespace).Get(t.Context(), test.name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			spec = d.Spec.Template.Spec
		}
		spec.PriorityClassName = "" // only kube-system may use those
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "try-"}, Spec: spec}
		_, err := c.Client.CoreV1().Pods("strict").Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		switch {
		case test.passes && err != nil:
			t.Errorf("%s of %s: %v", test.name, test.dir, err)
		case !test.passes && !apierrors.IsForbidden(err):
			t.Errorf("%s of %s passes as restricted: %v", test.name, test.dir, err)
		}
	}
}

const byLabel = "ValidatingAdmissionPolicy 'corax-controller-node-label'"

// TestDeployNodeLabel shows that the controller, which RBAC lets patch nodes, can
// change one label of them and nothing else.
func TestDeployNodeLabel(t *testing.T) {
	c := cluster.Start(t, cluster.Options{})
	c.Apply(t, crd, netAdmin)
	c.AddNode(t, cluster.Node{Name: "n", Labels: map[string]string{"kubernetes.io/os": "linux"}})
	ctl := userOf(t, c.AccountConfig(t, "corax-controller"))
	patch := func(body string, sub ...string) func(context.Context, user) error {
		return func(ctx context.Context, u user) error {
			_, err := u.CoreV1().Nodes().Patch(ctx, "n", types.MergePatchType, []byte(body), metav1.PatchOptions{}, sub...)
			return err
		}
	}
	n := 0
	cluster.Eventually(t, time.Minute, "policy in force", func(ctx context.Context) error {
		n++
		return refused(patch(fmt.Sprintf(`{"metadata":{"labels":{"x":"%d"}}}`, n))(ctx, ctl), byLabel)
	})
	for _, body := range []string{
		`{"metadata":{"labels":{"raven.openyurt.io/gateway":"cloud"}}}`,
		`{"metadata":{"labels":{"raven.openyurt.io/gateway":"edge"}}}`,
		`{"metadata":{"labels":{"raven.openyurt.io/gateway":null}}}`,
	} {
		if err := patch(body)(t.Context(), ctl); err != nil {
			t.Errorf("%s: %v", body, err)
		}
	}
	for _, body := range []string{
		`{"metadata":{"labels":{"kubernetes.io/hostname":"other"}}}`,
		`{"metadata":{"labels":{"kubernetes.io/os":null}}}`,
		`{"metadata":{"annotations":{"a":"b"}}}`,
		`{"metadata":{"finalizers":["corax.io/x"]}}`,
		`{"spec":{"unschedulable":true}}`,
		`{"spec":{"taints":[{"key":"k","effect":"NoExecute"}]}}`,
	} {
		if err := refused(patch(body)(t.Context(), ctl), byLabel); err != nil {
			t.Errorf("%s: %v", body, err)
		}
	}
	if err := refused(patch(`{"status":{"phase":"Running"}}`, "status")(t.Context(), ctl), byRBAC); err != nil {
		t.Errorf("status: %v", err)
	}
	if err := refused(ctl.CoreV1().Nodes().Delete(t.Context(), "n", metav1.DeleteOptions{}), byRBAC); err != nil {
		t.Errorf("delete: %v", err)
	}
}

// denials notes the requests that were refused for lack of rights.
type denials struct {
	mu   sync.Mutex
	list []string
}

func (d *denials) wrap(next http.RoundTripper) http.RoundTripper { return denialTripper{next, d} }

func (d *denials) all() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.list)
}

type denialTripper struct {
	next http.RoundTripper
	d    *denials
}

// RoundTrip sends the request on.
func (r denialTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.next.RoundTrip(req)
	if err == nil && resp.StatusCode == http.StatusForbidden {
		r.d.mu.Lock()
		r.d.list = append(r.d.list, req.Method+" "+req.URL.Path)
		r.d.mu.Unlock()
	}
	return resp, err
}

// TestDeployRights runs the controller and its uninstall with the rights that are
// shipped, through everything that they do: nothing may be refused, and nothing
// of theirs stay.
func TestDeployRights(t *testing.T) {
	c := cluster.Start(t, cluster.Options{Controllers: []string{"*", "-node-lifecycle-controller", "-taint-eviction-controller"}})
	c.Apply(t, crd, netAdmin, uninstall)
	for i, name := range []string{"cloud-1", "cloud-2", "edge-1"} {
		labels := map[string]string{"kubernetes.io/hostname": name}
		if name == "edge-1" {
			labels["apps.openyurt.io/nodepool"] = "hangzhou"
			labels["openyurt.io/is-edge-worker"] = "true"
		}
		c.AddNode(t, cluster.Node{
			Name: name, Labels: labels, IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})},
			PodCIDRs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 0}), 24)},
		})
	}
	var refusals denials
	cfg := controller.Config{
		Kubeconfig: c.Kubeconfig(t, c.AccountConfig(t, "corax-controller")), ExposeCloud: "LoadBalancer",
		LeaderElect: true, WrapTransport: refusals.wrap,
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- controller.Run(ctx, cfg) }()
	cluster.Eventually(t, 2*time.Minute, "the cloud is exposed", func(ctx context.Context) error {
		if d := refusals.all(); len(d) > 0 {
			t.Fatalf("refused: %q", d)
		}
		services, err := c.Client.CoreV1().Services("kube-system").List(ctx, metav1.ListOptions{LabelSelector: "raven.openyurt.io/gateway=cloud"})
		if err != nil || len(services.Items) == 0 {
			return errors.Join(err, errors.New("no Service"))
		}
		_, err = c.Client.CoreV1().ConfigMaps("kube-system").Get(ctx, "edge-tunnel-nodes", metav1.GetOptions{})
		return err
	})
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	cfg = controller.Config{Kubeconfig: c.Kubeconfig(t, c.AccountConfig(t, "corax-uninstall")), WrapTransport: refusals.wrap}
	if err := controller.Uninstall(t.Context(), cfg, "corax-controller"); err != nil {
		t.Error(err)
	}
	if d := refusals.all(); len(d) > 0 {
		t.Errorf("refused: %q", d)
	}
	for _, resource := range []string{"gateways", "services", "endpointslices", "leases", "configmaps"} {
		out, err := c.Kubectl(t, nil, "get", "-A", resource, "-l", "app.kubernetes.io/managed-by=corax-controller", "-o", "name")
		if err != nil || len(strings.TrimSpace(string(out))) > 0 {
			t.Errorf("%s are left: %v %s", resource, err, out)
		}
	}
	if out, err := c.Kubectl(t, nil, "get", "nodes", "-l", "raven.openyurt.io/gateway", "-o", "name"); err != nil || len(out) > 0 {
		t.Errorf("nodes are still labelled: %v %s", err, out)
	}
}
