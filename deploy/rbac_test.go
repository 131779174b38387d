package deploy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

type role struct {
	Rules []struct {
		APIGroups       []string `yaml:"apiGroups"`
		Resources       []string `yaml:"resources"`
		ResourceNames   []string `yaml:"resourceNames"`
		Verbs           []string `yaml:"verbs"`
		NonResourceURLs []string `yaml:"nonResourceURLs"`
	} `yaml:"rules"`
}

type binding struct {
	RoleRef struct {
		APIGroup string `yaml:"apiGroup"`
		Kind     string `yaml:"kind"`
		Name     string `yaml:"name"`
	} `yaml:"roleRef"`
	Subjects []struct {
		Kind      string `yaml:"kind"`
		Name      string `yaml:"name"`
		Namespace string `yaml:"namespace"`
	} `yaml:"subjects"`
}

// clusterWrites are the writes that somebody may do in the whole cluster: what
// narrows each of them further, or why it need not be.
var clusterWrites = map[string]string{
	"agent patch raven.openyurt.io/gateways":                    "policy corax-agent-own-entry",
	"hub create authentication.k8s.io/tokenreviews":             "asks, and changes nothing",
	"hub create authorization.k8s.io/subjectaccessreviews":      "asks, and changes nothing",
	"hub create certificates.k8s.io/certificatesigningrequests": "policy corax-front-own-request",
	"uninstall patch raven.openyurt.io/gateways":                "its work",
	"uninstall delete raven.openyurt.io/gateways":               "its work",
	"uninstall patch /nodes":                                    "policy corax-controller-node-label",
	"controller create raven.openyurt.io/gateways":              "its work",
	"controller patch raven.openyurt.io/gateways":               "its work",
	"controller delete raven.openyurt.io/gateways":              "its work",
	"controller patch raven.openyurt.io/gateways/status":        "its work",
	"controller patch /nodes":                                   "policy corax-controller-node-label",

	"controller update certificates.k8s.io/certificatesigningrequests/approval": "policy corax-controller-approval",
	"controller approve certificates.k8s.io/signers":                            "policy corax-controller-approval",
}

// namespaceWrites are the writes within one namespace, by component.
var namespaceWrites = map[string][]string{
	"agent": {"corax-leases coordination.k8s.io/leases"}, // policy corax-agent-own-lease
	"hub":   nil,
	"uninstall": {
		"kube-system /services", "kube-system discovery.k8s.io/endpointslices", "kube-system /configmaps",
		"kube-system coordination.k8s.io/leases", "corax-leases coordination.k8s.io/leases", "kube-system apps/deployments",
	},
	"controller": {
		"kube-system /services", "kube-system /endpoints", "kube-system discovery.k8s.io/endpointslices", "kube-system /configmaps",
		"kube-system coordination.k8s.io/leases", "corax-leases coordination.k8s.io/leases",
		"kube-system /events", "kube-system events.k8s.io/events", "default /events", "default events.k8s.io/events",
	},
}

var reading = []string{"get", "list", "watch"}

// forbidden are resources and verbs that would be a way to more rights.
var (
	forbiddenResources = []string{
		"secrets", "pods", "pods/exec", "nodes/proxy", "serviceaccounts", "serviceaccounts/token", "clusterroles",
		"clusterrolebindings", "roles", "rolebindings", "certificatesigningrequests/status", "validatingadmissionpolicies",
	}
	forbiddenVerbs = []string{"escalate", "bind", "impersonate", "deletecollection", "sign"}
)

func TestRBAC(t *testing.T) {
	used := map[string]bool{}
	for _, dir := range flavours {
		objects := closure(t, dir)
		for _, o := range only(objects, "Role", "ClusterRole") {
			var r role
			o.into(t, &r)
			if len(r.Rules) == 0 {
				t.Errorf("%s: %s: no rules", o.file, o.id())
			}
			for _, rule := range r.Rules {
				if slices.Contains(rule.Resources, "signers") && !slices.Equal(rule.ResourceNames, []string{"kubernetes.io/kubelet-serving"}) {
					t.Errorf("%s: %s: the signers %q", o.file, o.id(), rule.ResourceNames)
				}
				if len(rule.NonResourceURLs) > 0 {
					t.Errorf("%s: %s: a rule for URLs", o.file, o.id())
				}
				for _, w := range writes(t, o, rule.APIGroups, rule.Resources, rule.Verbs) {
					used[w] = true
				}
			}
		}
	}
	for w := range clusterWrites {
		if !used[w] {
			t.Errorf("nobody needs %q any more", w)
		}
	}
}

// writes returns the writes of a rule, and fails on those that nobody may have.
func writes(t *testing.T, o *object, groups, resources, verbs []string) (all []string) {
	t.Helper()
	component := o.Metadata.Labels["app.kubernetes.io/component"]
	for _, list := range [][]string{groups, resources, verbs} {
		if len(list) == 0 || slices.Contains(list, "*") {
			t.Errorf("%s: %s: an empty list or a wildcard", o.file, o.id())
		}
	}
	for _, verb := range verbs {
		if slices.Contains(forbiddenVerbs, verb) {
			t.Errorf("%s: %s: verb %s", o.file, o.id(), verb)
		}
		for _, resource := range resources {
			if slices.Contains(forbiddenResources, resource) {
				t.Errorf("%s: %s: resource %s", o.file, o.id(), resource)
			}
			for _, group := range groups {
				if slices.Contains(reading, verb) {
					continue
				}
				what := fmt.Sprintf("%s/%s", group, resource)
				w := fmt.Sprintf("%s %s %s", component, verb, what)
				if o.Kind == "ClusterRole" && clusterWrites[w] == "" {
					t.Errorf("%s: %s: may %s in the whole cluster", o.file, o.id(), w)
				}
				if o.Kind == "Role" && !slices.Contains(namespaceWrites[component], o.Metadata.Namespace+" "+what) {
					t.Errorf("%s: %s: may %s", o.file, o.id(), w)
				}
				all = append(all, w)
			}
		}
	}
	return all
}

// TestBindings follows every binding to a role and to accounts that exist, and
// nobody else.
func TestBindings(t *testing.T) {
	for _, dir := range flavours {
		objects := closure(t, dir)
		exists := map[string]bool{}
		bound := map[string]bool{}
		for _, o := range objects {
			exists[o.id()] = true
		}
		for _, o := range only(objects, "RoleBinding", "ClusterRoleBinding") {
			var b binding
			o.into(t, &b)
			namespace := o.Metadata.Namespace
			if b.RoleRef.Kind == "ClusterRole" {
				namespace = ""
			}
			id := strings.Join([]string{b.RoleRef.Kind, namespace, b.RoleRef.Name}, " ")
			if !exists[id] || o.Kind != b.RoleRef.Kind+"Binding" {
				t.Errorf("%s: %s: binds %s", o.file, o.id(), id)
			}
			bound[id] = true
			for _, s := range b.Subjects {
				if s.Kind != "ServiceAccount" || !exists["ServiceAccount "+s.Namespace+" "+s.Name] {
					t.Errorf("%s: %s: for %s %s", o.file, o.id(), s.Kind, s.Name)
				}
			}
		}
		for _, o := range only(objects, "Role", "ClusterRole") {
			if !bound[o.id()] {
				t.Errorf("%s: %s is bound to nobody", o.file, o.id())
			}
		}
	}
}

// TestPolicies checks that every policy is in force, and that those for agents
// name the accounts that the agents run as.
func TestPolicies(t *testing.T) {
	for _, dir := range flavours {
		objects := closure(t, dir)
		var users []string
		for _, o := range only(objects, "DaemonSet") {
			var ds workload
			o.into(t, &ds)
			users = append(users, fmt.Sprintf("'system:serviceaccount:%s:%s'", o.Metadata.Namespace, ds.Spec.Template.Spec.ServiceAccountName))
		}
		if len(only(objects, "ValidatingAdmissionPolicy")) == 0 && dir == "manifests/uninstall" {
			continue // those of the base are still in force
		}
		denies := map[string]bool{}
		for _, o := range only(objects, "ValidatingAdmissionPolicyBinding") {
			var b struct {
				Spec struct {
					PolicyName        string   `yaml:"policyName"`
					ValidationActions []string `yaml:"validationActions"`
					MatchResources    any      `yaml:"matchResources"`
				} `yaml:"spec"`
			}
			o.into(t, &b)
			denies[b.Spec.PolicyName] = slices.Equal(b.Spec.ValidationActions, []string{"Deny"}) && b.Spec.MatchResources == nil
		}
		want := []string{"corax-agent-own-entry", "corax-agent-own-lease", "corax-front-own-request"}
		if dir != "manifests/presets/openyurt" {
			want = append(want, "corax-controller-node-label", "corax-controller-approval")
		}
		for _, o := range only(objects, "ValidatingAdmissionPolicy") {
			var p struct {
				Spec struct {
					FailurePolicy   string `yaml:"failurePolicy"`
					MatchConditions []struct {
						Expression string `yaml:"expression"`
					} `yaml:"matchConditions"`
				} `yaml:"spec"`
			}
			o.into(t, &p)
			name := o.Metadata.Name
			if p.Spec.FailurePolicy != "Fail" || !denies[name] || len(p.Spec.MatchConditions) != 1 {
				t.Errorf("%s: %s is not in force for everything", o.file, name)
			}
			for _, u := range users {
				if strings.HasPrefix(name, "corax-agent") && !strings.Contains(p.Spec.MatchConditions[0].Expression, u) {
					t.Errorf("%s: %s does not hold for %s", o.file, name, u)
				}
			}
			want = slices.DeleteFunc(want, func(w string) bool { return w == name })
		}
		if len(want) > 0 {
			t.Errorf("%s lacks %q", dir, want)
		}
	}
}
