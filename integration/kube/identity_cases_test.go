//go:build linux

package kube_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authnv1 "k8s.io/api/authentication/v1"
	authzv1 "k8s.io/api/authorization/v1"
	coordv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"corax/integration/kube/cluster"
)

// attempt is one request and who refuses it; empty: nobody.
type attempt struct {
	name string
	do   func(context.Context, user) error
	by   string
}

func try(t *testing.T, u user, attempts []attempt) {
	t.Helper()
	for _, a := range attempts {
		t.Run(a.name, func(t *testing.T) {
			err := a.do(t.Context(), u)
			if a.by != "" {
				err = refused(err, a.by)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

const (
	own   = "/spec/endpoints/0" // edge-a-gw's tunnel entry in Gateway edge-a
	peer  = "/spec/endpoints/1" // edge-a-1's
	proxy = "/spec/endpoints/2" // edge-a-gw's proxy entry, without config
)

func permitted(t *testing.T, agent user) {
	try(t, agent, []attempt{
		{"natType", edit("edge-a", op("test", own+"/nodeName", "edge-a-gw"), op("add", own+"/natType", "PortRestricted")), ""},
		{"publicIP and publicPort", edit("edge-a", op("add", own+"/publicIP", "203.0.113.10"), op("add", own+"/publicPort", 4500)), ""},
		{"publicKey", edit("edge-a", op("test", own+"/config/publicKey", keyOf("a")), op("add", own+"/config/publicKey", keyOf("c"))), ""},
		{"a key of ours", edit("edge-a", op("add", own+"/config/corax.io~1next-public-key", keyOf("d"))), ""},
		{"a key of ours removed", edit("edge-a", op("remove", own+"/config/corax.io~1next-public-key")), ""},
		{"both entries, config made", edit("edge-a", op("add", own+"/config/corax.io~1tls-port", "443"),
			op("test", proxy+"/config", nil), op("add", proxy+"/config", object{}), op("add", proxy+"/config/publicKey", keyOf("c"))), ""},
		{"read Gateways", func(ctx context.Context, u user) error {
			_, err := u.gateways.List(ctx, metav1.ListOptions{})
			return err
		}, ""},
		{"read raven-cfg", func(ctx context.Context, u user) error {
			_, err := u.CoreV1().ConfigMaps("kube-system").Get(ctx, "raven-cfg", metav1.GetOptions{})
			return err
		}, ""},
		{"watch raven-cfg", func(ctx context.Context, u user) error {
			w, err := u.CoreV1().ConfigMaps("kube-system").Watch(ctx, metav1.SingleObject(metav1.ObjectMeta{Name: "raven-cfg"}))
			if err == nil {
				w.Stop()
			}
			return err
		}, ""},
		{"make the own Lease", createLease("corax-leases", metav1.ObjectMeta{Name: "edge-a-gw"}), ""},
		{"renew it", patchLease("corax-leases", "edge-a-gw", "edge-a-gw"), ""},
		{"replace it", func(ctx context.Context, u user) error {
			leases := u.CoordinationV1().Leases("corax-leases")
			l, err := leases.Get(ctx, "edge-a-gw", metav1.GetOptions{})
			if err == nil {
				_, err = leases.Update(ctx, l, metav1.UpdateOptions{})
			}
			return err
		}, ""},
	})
}

func deniedGateways(t *testing.T, agent user) {
	entry := endpoint("edge-a-gw", "tunnel", "underNAT", true)
	try(t, agent, []attempt{
		{"another Gateway's entry", edit("edge-b", op("add", "/spec/endpoints/0/config/publicKey", keyOf("c"))), byEntry},
		{"another Gateway's natType", edit("edge-b", op("add", "/spec/endpoints/0/natType", "Open")), byEntry},
		{"the cloud's publicIP", edit("cloud", op("add", "/spec/endpoints/0/publicIP", "203.0.113.10")), byEntry},
		{"another node's entry", edit("edge-a", op("add", peer+"/config/publicKey", keyOf("e"))), byEntry},
		{"another node's key as its own", edit("edge-a", op("add", own+"/config/publicKey", keyOf("1"))), byEntry},
		{"a key that is none", edit("edge-a", op("add", own+"/config/publicKey", "none")), byEntry},
		{"underNAT", edit("edge-a", op("add", own+"/underNAT", false), op("add", peer+"/underNAT", false), op("add", proxy+"/underNAT", false)), byEntry},
		{"port", edit("edge-a", op("add", own+"/port", 53)), byEntry},
		{"its own name", edit("edge-a", op("replace", own+"/nodeName", "edge-a-1")), byEntry},
		{"another's name", edit("edge-a", op("replace", peer+"/nodeName", "edge-a-gw")), byEntry},
		{"its type", edit("edge-a", op("replace", own+"/type", "proxy")), byEntry},
		{"a field that we do not know", edit("edge-a", op("add", own+"/weight", 1)), byEntry},
		{"a config key of others", edit("edge-a", op("add", own+"/config/psk", "x")), byEntry},
		{"a config key of others changed", edit("edge-a", op("replace", own+"/config/theirs", "2")), byEntry},
		{"a config key of others removed", edit("edge-a", op("remove", own+"/config/theirs")), byEntry},
		{"config replaced", edit("edge-a", op("replace", own+"/config", object{"publicKey": keyOf("c")})), byEntry},
		{"an entry added", edit("edge-b", op("add", "/spec/endpoints/-", entry)), byEntry},
		{"an entry before the others", edit("edge-b", op("add", "/spec/endpoints/0", entry)), byEntry},
		{"an entry removed", edit("edge-a", op("remove", peer)), byEntry},
		{"the own entry removed", edit("edge-a", op("remove", proxy)), byEntry},
		{"entries reordered", func(ctx context.Context, u user) error {
			return u.gateways.patch(ctx, "edge-a", types.JSONPatchType, []any{object{"op": "move", "from": own, "path": peer}})
		}, byEntry},
		{"all entries replaced", merge("edge-a", object{"spec": endpoints(entry)}), byEntry},
		{"all entries removed", merge("edge-a", object{"spec": object{"endpoints": nil}}), byEntry},
		{"exposeType", merge("edge-a", object{"spec": object{"exposeType": ""}}), byEntry},
		{"replicas", merge("edge-a", object{"spec": object{"tunnelConfig": object{"Replicas": 0}}}), byEntry},
		{"proxyConfig", merge("edge-a", object{"spec": object{"proxyConfig": object{"Replicas": 1}}}), byEntry},
		{"nodeSelector", merge("edge-a", object{"spec": object{"nodeSelector": object{"matchLabels": object{"a": "b"}}}}), byEntry},
		{"a field of the spec that we do not know", merge("edge-a", object{"spec": object{"later": 1}}), byEntry},
		{"the spec removed", merge("edge-a", object{"spec": nil}), byEntry},
		{"the epoch", merge("edge-a", object{"metadata": object{"annotations": object{"corax.io/epoch": "99"}}}), byEntry},
		{"a label", merge("edge-a", object{"metadata": object{"labels": object{"app.kubernetes.io/managed-by": "me"}}}), byEntry},
		{"a finalizer", merge("edge-a", object{"metadata": object{"finalizers": []any{"corax.io/x"}}}), byEntry},
		{"an owner", merge("edge-a", object{"metadata": object{"ownerReferences": []any{
			object{"apiVersion": "v1", "kind": "Node", "name": "edge-a-gw", "uid": "x"},
		}}}), byEntry},
		{"server-side apply", func(ctx context.Context, u user) error {
			g := newGateway("edge-a", endpoints(endpoint("edge-a-gw", "tunnel", "underNAT", true, "natType", "Open")))
			_, err := u.gateways.Apply(ctx, "edge-a", g, metav1.ApplyOptions{FieldManager: "agent", Force: true})
			return err
		}, byEntry},
		{"a Gateway made by apply", func(ctx context.Context, u user) error {
			_, err := u.gateways.Apply(ctx, "new", newGateway("new", object{}), metav1.ApplyOptions{FieldManager: "agent"})
			return err
		}, byRBAC},
		{"the status", merge("edge-a", object{"status": object{"nodes": []any{}}}, "status"), byRBAC},
		{"a whole Gateway", func(ctx context.Context, u user) error {
			g, err := u.gateways.Get(ctx, "edge-a", metav1.GetOptions{})
			if err == nil {
				_, err = u.gateways.Update(ctx, g, metav1.UpdateOptions{})
			}
			return err
		}, byRBAC},
		{"a new Gateway", func(ctx context.Context, u user) error {
			_, err := u.gateways.Create(ctx, newGateway("new", object{}), metav1.CreateOptions{})
			return err
		}, byRBAC},
		{"no Gateway", func(ctx context.Context, u user) error {
			return u.gateways.Delete(ctx, "edge-b", metav1.DeleteOptions{})
		}, byRBAC},
		{"no Gateways", func(ctx context.Context, u user) error {
			return u.gateways.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
		}, byRBAC},
	})
}

func deniedLeases(t *testing.T, agent user) {
	try(t, agent, []attempt{
		{"another node's", patchLease("corax-leases", "edge-b-gw", ""), byLease},
		{"another node's replaced", func(ctx context.Context, u user) error {
			leases := u.CoordinationV1().Leases("corax-leases")
			l, err := leases.Get(ctx, "edge-b-gw", metav1.GetOptions{})
			if err == nil {
				l.Labels = map[string]string{"a": "b"}
				_, err = leases.Update(ctx, l, metav1.UpdateOptions{})
			}
			return err
		}, byLease},
		{"one for another node", createLease("corax-leases", metav1.ObjectMeta{Name: "cloud-gw"}), byLease},
		{"one of any name", createLease("corax-leases", metav1.ObjectMeta{GenerateName: "edge-a-gw"}), byLease},
		{"another node's removed", func(ctx context.Context, u user) error {
			return u.CoordinationV1().Leases("corax-leases").Delete(ctx, "edge-b-gw", metav1.DeleteOptions{})
		}, byAny},
		{"in kube-system", createLease("kube-system", metav1.ObjectMeta{Name: "edge-a-gw"}), byRBAC},
		{"the kubelet's", patchLease("kube-node-lease", "edge-a-gw", ""), byRBAC},
		{"the leader's", patchLease("kube-system", "corax-controller", "me"), byRBAC},
	})
}

func deniedOthers(t *testing.T, agent user, isHub bool) {
	hubs := byRBAC // what only hubs may do
	if isHub {
		hubs = ""
	}
	meta := metav1.ObjectMeta{Name: "x"}
	try(t, agent, []attempt{
		{"make a Service", func(ctx context.Context, u user) error {
			_, err := u.CoreV1().Services("kube-system").Create(ctx, &corev1.Service{ObjectMeta: meta}, metav1.CreateOptions{})
			return err
		}, byRBAC},
		{"change a Service", func(ctx context.Context, u user) error {
			_, err := u.CoreV1().Services("default").Patch(ctx, "kubernetes", types.MergePatchType, []byte(`{"spec":{"externalIPs":["203.0.113.10"]}}`), metav1.PatchOptions{})
			return err
		}, byRBAC},
		{"remove a Service", func(ctx context.Context, u user) error {
			return u.CoreV1().Services("default").Delete(ctx, "kubernetes", metav1.DeleteOptions{})
		}, byRBAC},
		{"make an EndpointSlice", func(ctx context.Context, u user) error {
			s := &discoveryv1.EndpointSlice{ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4}
			_, err := u.DiscoveryV1().EndpointSlices("kube-system").Create(ctx, s, metav1.CreateOptions{})
			return err
		}, byRBAC},
		{"change raven-cfg", func(ctx context.Context, u user) error {
			_, err := u.CoreV1().ConfigMaps("kube-system").Patch(ctx, "raven-cfg", types.MergePatchType, []byte(`{"data":{"acl-entry":"0.0.0.0/0"}}`), metav1.PatchOptions{})
			return err
		}, byRBAC},
		{"make a ConfigMap", func(ctx context.Context, u user) error {
			_, err := u.CoreV1().ConfigMaps("kube-system").Create(ctx, &corev1.ConfigMap{ObjectMeta: meta}, metav1.CreateOptions{})
			return err
		}, byRBAC},
		{"change edge-tunnel-nodes", func(ctx context.Context, u user) error {
			_, err := u.CoreV1().ConfigMaps("kube-system").Patch(ctx, "edge-tunnel-nodes", types.MergePatchType, []byte(`{"data":{}}`), metav1.PatchOptions{})
			return err
		}, byRBAC},
		{"list ConfigMaps", func(ctx context.Context, u user) error {
			_, err := u.CoreV1().ConfigMaps("kube-system").List(ctx, metav1.ListOptions{})
			return err
		}, byRBAC},
		{"list Secrets", func(ctx context.Context, u user) error {
			_, err := u.CoreV1().Secrets("kube-system").List(ctx, metav1.ListOptions{})
			return err
		}, byRBAC},
		{"change its node", func(ctx context.Context, u user) error {
			_, err := u.CoreV1().Nodes().Patch(ctx, "edge-a-gw", types.MergePatchType, []byte(`{"metadata":{"labels":{"raven.openyurt.io/gateway":"cloud"}}}`), metav1.PatchOptions{})
			return err
		}, byRBAC},
		{"a token of another account", func(ctx context.Context, u user) error {
			_, err := u.CoreV1().ServiceAccounts("kube-system").CreateToken(ctx, "corax-controller", &authnv1.TokenRequest{}, metav1.CreateOptions{})
			return err
		}, byRBAC},
		{"a Pod on another node", func(ctx context.Context, u user) error {
			p := &corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{NodeName: "edge-b-gw", Containers: []corev1.Container{{Name: "a", Image: "b"}}}}
			_, err := u.CoreV1().Pods("kube-system").Create(ctx, p, metav1.CreateOptions{})
			return err
		}, byRBAC},
		{"change a policy", func(ctx context.Context, u user) error {
			return u.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Delete(ctx, "corax-agent-own-entry", metav1.DeleteOptions{})
		}, byRBAC},
		{"list Nodes", listNodes, hubs},
		{"review a token", reviewToken, hubs},
		{"review access", reviewAccess, hubs},
	})
}

func listNodes(ctx context.Context, u user) error {
	_, err := u.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	return err
}

func reviewToken(ctx context.Context, u user) error {
	_, err := u.AuthenticationV1().TokenReviews().Create(ctx, &authnv1.TokenReview{Spec: authnv1.TokenReviewSpec{Token: "x"}}, metav1.CreateOptions{})
	return err
}

func reviewAccess(ctx context.Context, u user) error {
	r := &authzv1.SubjectAccessReview{Spec: authzv1.SubjectAccessReviewSpec{
		User: "a", NonResourceAttributes: &authzv1.NonResourceAttributes{Path: "/", Verb: "get"},
	}}
	_, err := u.AuthorizationV1().SubjectAccessReviews().Create(ctx, r, metav1.CreateOptions{})
	return err
}

// noNode is an account's token that is bound to no Pod, as those in Secrets.
func noNode(t *testing.T, agent user) {
	try(t, agent, []attempt{
		{"an entry", edit("edge-a", op("add", own+"/natType", "Open")), byEntry},
		{"a Lease", patchLease("corax-leases", "edge-a-gw", ""), byLease},
		{"a Lease without a name", createLease("corax-leases", metav1.ObjectMeta{GenerateName: "x-"}), byLease},
	})
}

func hub(t *testing.T, hub user) {
	try(t, hub, []attempt{
		{"own entry", edit("cloud", op("add", "/spec/endpoints/0/natType", "Open")), ""},
		{"own Lease", createLease("corax-leases", metav1.ObjectMeta{Name: "cloud-gw"}), ""},
		{"list Nodes", listNodes, ""},
		{"review a token", reviewToken, ""},
		{"review access", reviewAccess, ""},
		{"another's entry", edit("edge-a", op("add", own+"/natType", "Open")), byEntry},
		{"another's Lease", patchLease("corax-leases", "edge-a-gw", ""), byLease},
		{"exposeType", merge("cloud", object{"spec": object{"exposeType": ""}}), byEntry},
		{"the status", merge("cloud", object{"status": object{}}, "status"), byRBAC},
		{"change a node", func(ctx context.Context, u user) error {
			_, err := u.CoreV1().Nodes().Patch(ctx, "edge-a-gw", types.MergePatchType, []byte(`{"spec":{"unschedulable":true}}`), metav1.PatchOptions{})
			return err
		}, byRBAC},
		{"list Secrets", func(ctx context.Context, u user) error {
			_, err := u.CoreV1().Secrets("kube-system").List(ctx, metav1.ListOptions{})
			return err
		}, byRBAC},
	})
}

// kubelet is an agent outside of pods, which uses the kubelet's certificate once
// somebody gave nodes the agents' role.
func kubelet(t *testing.T, c *cluster.Cluster, p preset) {
	role := map[string]string{"standalone": "corax-agent", "openyurt": "raven-agent-role"}[p.name]
	c.ApplyYAML(t, `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: nodes}, `+
		`roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: `+role+`}, `+
		`subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:nodes"}]}`)
	u := userOf(t, c.UserConfig(t, "system:node:edge-a-gw", "system:nodes"))
	cluster.Eventually(t, time.Minute, "the binding", func(ctx context.Context) error {
		_, err := u.gateways.List(ctx, metav1.ListOptions{})
		return err
	})
	try(t, u, []attempt{
		{"own entry", edit("edge-a", op("add", own+"/natType", "Symmetric")), ""},
		{"another's entry", edit("edge-b", op("add", "/spec/endpoints/0/natType", "Open")), byEntry},
		{"another Gateway's", edit("edge-a", op("add", peer+"/natType", "Open")), byEntry},
		{"a Lease of ours", createLease("corax-leases", metav1.ObjectMeta{Name: "edge-b-gw"}), byRBAC},
	})
}

// labels is a kubelet that gives its own node labels: those that say to which
// domain it belongs are not its to give.
func labels(t *testing.T, c *cluster.Cluster) {
	c.ApplyYAML(t, `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: kubelets}, `+
		`rules: [{apiGroups: [""], resources: [nodes, nodes/status], verbs: [get, patch]}]}`)
	c.ApplyYAML(t, `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: kubelets}, `+
		`roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: kubelets}, `+
		`subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:nodes"}]}`)
	u := userOf(t, c.UserConfig(t, "system:node:edge-a-gw", "system:nodes"))
	label := func(key, value string, subresource ...string) func(context.Context, user) error {
		return func(ctx context.Context, u user) error {
			patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%s}}}`, key, value)
			_, err := u.CoreV1().Nodes().Patch(ctx, "edge-a-gw", types.MergePatchType, []byte(patch), metav1.PatchOptions{}, subresource...)
			return err
		}
	}
	cluster.Eventually(t, time.Minute, "the binding", func(ctx context.Context) error {
		return label("example.com/rack", `"7"`)(ctx, u)
	})
	c.Label(t, "edge-a-gw", map[string]string{"apps.openyurt.io/nodepool": "edge-a", "openyurt.io/is-edge-worker": "true"})
	try(t, u, []attempt{
		{"a label of its own", label("example.com/rack", `"8"`), ""},
		{"the Gateway", label("raven.openyurt.io/gateway", `"cloud"`), byNode},
		{"the Gateway, by the status", label("raven.openyurt.io/gateway", `"cloud"`, "status"), byNode},
		{"pinned", label("raven.openyurt.io/gateway-node", `"true"`), byNode},
		{"no edge worker", label("openyurt.io/is-edge-worker", `"false"`), byNode},
		{"no edge worker at all", label("openyurt.io/is-edge-worker", `null`), byNode},
		{"another pool", label("apps.openyurt.io/nodepool", `"cloud"`), byNode},
		{"no pool", label("apps.openyurt.io/nodepool", `null`), byNode},
	})
}

// untouched looks at what the denied attempts were about.
func untouched(t *testing.T, c *cluster.Cluster) {
	admin := gatewaysOf(t, c.Config())
	for name, want := range map[string][]any{
		"edge-b": {endpoint("edge-b-gw", "tunnel", "underNAT", true, "config", object{"publicKey": keyOf("b")})},
		"edge-a": {
			endpoint("edge-a-gw", "tunnel", "port", int64(4500), "underNAT", true, "natType", "Symmetric",
				"publicIP", "203.0.113.10", "publicPort", int64(4500),
				"config", object{"publicKey": keyOf("c"), "theirs": "1", "corax.io/tls-port": "443"}),
			endpoint("edge-a-1", "tunnel", "underNAT", true, "config", object{"publicKey": keyOf("1")}),
			endpoint("edge-a-gw", "proxy", "underNAT", true, "config", object{"publicKey": keyOf("c")}),
		},
	} {
		got, _, err := unstructured.NestedSlice(admin.get(t, name).Object, "spec", "endpoints")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("gateway %s (-want +got):\n%s", name, diff)
		}
	}
	l, err := c.Client.CoordinationV1().Leases("corax-leases").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, item := range l.Items {
		names = append(names, item.Name)
		if item.Name == "edge-b-gw" && item.Spec != (coordv1.LeaseSpec{}) {
			t.Errorf("Lease edge-b-gw was written: %+v", item.Spec)
		}
	}
	if want := []string{"cloud-gw", "edge-a-gw", "edge-b-gw", "probe"}; !slices.Equal(names, want) {
		t.Errorf("Leases are %v, not %v", names, want)
	}
}
