package deploy

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// workload is what DaemonSets and Deployments have in common.
type workload struct {
	Spec struct {
		Replicas int `yaml:"replicas"`
		Template struct {
			Spec podSpec `yaml:"spec"`
		} `yaml:"template"`
	} `yaml:"spec"`
}

type podSpec struct {
	ServiceAccountName string `yaml:"serviceAccountName"`
	Automount          *bool  `yaml:"automountServiceAccountToken"`
	HostNetwork        bool   `yaml:"hostNetwork"`
	HostPID            bool   `yaml:"hostPID"`
	HostIPC            bool   `yaml:"hostIPC"`
	SecurityContext    struct {
		RunAsNonRoot   *bool          `yaml:"runAsNonRoot"`
		RunAsUser      *int           `yaml:"runAsUser"`
		SeccompProfile map[string]any `yaml:"seccompProfile"`
		Sysctls        []sysctl       `yaml:"sysctls"`
	} `yaml:"securityContext"`
	Affinity struct {
		NodeAffinity struct {
			Required struct {
				NodeSelectorTerms []selectorTerm `yaml:"nodeSelectorTerms"`
			} `yaml:"requiredDuringSchedulingIgnoredDuringExecution"`
		} `yaml:"nodeAffinity"`
	} `yaml:"affinity"`
	InitContainers []container      `yaml:"initContainers"`
	Containers     []container      `yaml:"containers"`
	Volumes        []map[string]any `yaml:"volumes"`
}

type sysctl struct {
	Name  string `yaml:"name"`
	Value string `yaml:"value"`
}

type selectorTerm struct {
	MatchExpressions []expression `yaml:"matchExpressions"`
}

type expression struct {
	Key      string   `yaml:"key"`
	Operator string   `yaml:"operator"`
	Values   []string `yaml:"values"`
}

type container struct {
	Name            string   `yaml:"name"`
	Image           string   `yaml:"image"`
	Args            []string `yaml:"args"`
	SecurityContext struct {
		Privileged               *bool `yaml:"privileged"`
		AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   *bool `yaml:"readOnlyRootFilesystem"`
		RunAsUser                *int  `yaml:"runAsUser"`
		Capabilities             struct {
			Drop []string `yaml:"drop"`
			Add  []string `yaml:"add"`
		} `yaml:"capabilities"`
	} `yaml:"securityContext"`
	Resources struct {
		Requests map[string]string `yaml:"requests"`
		Limits   map[string]string `yaml:"limits"`
	} `yaml:"resources"`
}

func is(p *bool, v bool) bool { return p != nil && *p == v }

// hostPaths returns path and type of the volumes that are the host's.
func (p *podSpec) hostPaths() map[string]string {
	paths := map[string]string{}
	for _, v := range p.Volumes {
		if h, ok := v["hostPath"].(map[string]any); ok {
			path, _ := h["path"].(string)
			paths[path], _ = h["type"].(string)
		}
	}
	return paths
}

// TestPods checks what every pod may do to its node.
func TestPods(t *testing.T) {
	for _, dir := range flavours {
		for _, o := range only(closure(t, dir), "DaemonSet", "Deployment", "Job") {
			var w workload
			o.into(t, &w)
			pod := &w.Spec.Template.Spec
			checkSysctls(t, o, pod, o.Kind == "DaemonSet" && dir == "manifests/profiles/unprivileged")
			netAdmin := o.Kind == "DaemonSet" && dir != "manifests/profiles/unprivileged"
			state := "/var/lib/corax"
			if dir == "manifests/presets/openyurt" {
				state = "/var/lib/raven"
			}
			checkPod(t, o, pod, netAdmin, state)
			if o.Kind == "Deployment" && w.Spec.Replicas != 2 {
				t.Errorf("%s: %d replicas", o.id(), w.Spec.Replicas)
			}
		}
	}
}

// checkSysctls: an agent without privileges may ping, and nothing else is set. In the
// host's network nothing can be. The kubelet, and PodSecurity "restricted", take what
// is safe only; that this one is, see
// https://kubernetes.io/docs/concepts/security/pod-security-standards/.
func checkSysctls(t *testing.T, o *object, pod *podSpec, pings bool) {
	t.Helper()
	var want []sysctl
	if pings {
		want = []sysctl{{"net.ipv4.ping_group_range", "0 2147483647"}}
	}
	if !slices.Equal(pod.SecurityContext.Sysctls, want) {
		t.Errorf("%s: %s: sysctls %v", o.file, o.id(), pod.SecurityContext.Sysctls)
	}
}

func checkPod(t *testing.T, o *object, pod *podSpec, netAdmin bool, state string) {
	t.Helper()
	fail := func(what string) { t.Helper(); t.Errorf("%s: %s: %s", o.file, o.id(), what) }
	if pod.HostPID || pod.HostIPC || len(pod.InitContainers) > 0 || len(pod.Containers) != 1 {
		fail("shares more with the host than it needs, or has other containers")
	}
	if pod.SecurityContext.SeccompProfile["type"] != "RuntimeDefault" || !is(pod.Automount, true) {
		fail("seccomp, or the token")
	}
	c := &pod.Containers[0]
	s := &c.SecurityContext
	if s.Privileged != nil || !is(s.AllowPrivilegeEscalation, false) || !is(s.ReadOnlyRootFilesystem, true) ||
		!slices.Equal(s.Capabilities.Drop, []string{"ALL"}) {
		fail("the container's security context")
	}
	if c.Resources.Requests["cpu"] == "" || c.Resources.Limits["memory"] == "" || c.Resources.Limits["cpu"] != "" {
		fail("resources: a packet path that is throttled stalls everybody")
	}
	if !netAdmin {
		// What PodSecurity "restricted" asks for beside.
		if pod.HostNetwork || len(pod.hostPaths()) > 0 || len(s.Capabilities.Add) > 0 || s.RunAsUser != nil ||
			!is(pod.SecurityContext.RunAsNonRoot, true) || pod.SecurityContext.RunAsUser == nil || *pod.SecurityContext.RunAsUser != 65532 {
			fail("is not restricted")
		}
		return
	}
	if !pod.HostNetwork || s.RunAsUser == nil || *s.RunAsUser != 0 || !slices.Equal(s.Capabilities.Add, []string{"NET_ADMIN"}) {
		fail("a TUN needs uid 0 and NET_ADMIN, and nothing else")
	}
	if want := map[string]string{state: "DirectoryOrCreate", "/dev/net/tun": "CharDevice"}; !maps.Equal(want, pod.hostPaths()) {
		fail("host paths")
	}
}

// TestEveryNodeHasOneAgent: the two DaemonSets part the nodes between them.
func TestEveryNodeHasOneAgent(t *testing.T) {
	nodes := []map[string]string{
		{},
		{"raven.openyurt.io/gateway": "cloud"},
		{"raven.openyurt.io/gateway": "hangzhou"},
		{"raven.openyurt.io/gateway": "cloud", "openyurt.io/is-edge-worker": "true"},
	}
	for _, dir := range flavours[:3] {
		for _, labels := range nodes {
			var agents []string
			for _, o := range only(closure(t, dir), "DaemonSet") {
				var w workload
				o.into(t, &w)
				terms := w.Spec.Template.Spec.Affinity.NodeAffinity.Required.NodeSelectorTerms
				if len(terms) != 1 {
					t.Fatalf("%s: %d terms", o.id(), len(terms))
				}
				if matches(t, terms[0].MatchExpressions, labels) {
					agents = append(agents, o.Metadata.Name)
				}
			}
			if len(agents) != 1 {
				t.Errorf("%s: a node with %v has the agents %q", dir, labels, agents)
			}
			if labels["raven.openyurt.io/gateway"] == "cloud" && dir != "manifests/presets/openyurt" && !slices.Contains(agents, "corax-hub") {
				t.Errorf("%s: a node of the cloud has the agents %q", dir, agents)
			}
		}
	}
}

// TestWhoHasTheControllersRights: neither the controller nor its uninstall runs on
// a node that is known to be of an edge, whatever tells that.
func TestWhoHasTheControllersRights(t *testing.T) {
	const gateway, worker, plane = "raven.openyurt.io/gateway", "openyurt.io/is-edge-worker", "node-role.kubernetes.io/control-plane"
	for _, tt := range []struct {
		labels map[string]string
		want   bool
	}{
		{nil, true},
		{map[string]string{gateway: "cloud"}, true},
		{map[string]string{gateway: "hangzhou"}, false},
		{map[string]string{gateway: "by-hand", plane: ""}, true},
		{map[string]string{worker: "true"}, false},
		{map[string]string{worker: "true", gateway: "cloud"}, false},
		{map[string]string{worker: "false"}, true},
	} {
		for kind, dir := range map[string]string{"Deployment": flavours[0], "Job": "manifests/uninstall"} {
			list := only(closure(t, dir), kind)
			if len(list) != 1 {
				t.Fatalf("%s has %d of %s", dir, len(list), kind)
			}
			var w workload
			list[0].into(t, &w)
			terms := w.Spec.Template.Spec.Affinity.NodeAffinity.Required.NodeSelectorTerms
			got := slices.ContainsFunc(terms, func(term selectorTerm) bool { return matches(t, term.MatchExpressions, tt.labels) })
			if got != tt.want {
				t.Errorf("%s on a node with %v: %v", list[0].id(), tt.labels, got)
			}
		}
	}
}

// matches does what the scheduler does.
func matches(t *testing.T, all []expression, labels map[string]string) bool {
	t.Helper()
	for _, e := range all {
		v, ok := labels[e.Key]
		in := ok && slices.Contains(e.Values, v)
		switch e.Operator {
		case "In":
			if !in {
				return false
			}
		case "NotIn":
			if in {
				return false
			}
		case "Exists", "DoesNotExist":
			if ok != (e.Operator == "Exists") {
				return false
			}
		default:
			t.Fatalf("operator %s", e.Operator)
		}
	}
	return true
}

// TestFlagsExist compares the arguments of all pods, and of the systemd unit, with
// the flags that the program has.
func TestFlagsExist(t *testing.T) {
	known := flags(t)
	var args []string
	for _, dir := range flavours {
		for _, o := range only(closure(t, dir), "DaemonSet", "Deployment", "Job") {
			var w workload
			o.into(t, &w)
			args = append(args, w.Spec.Template.Spec.Containers[0].Args...)
		}
	}
	// Arguments that only some values bring, and those of the unit.
	for _, f := range []string{"chart/corax/templates/_agent.tpl", "chart/corax/templates/controller.yaml", "chart/corax/templates/uninstall.yaml"} {
		args = append(args, argument.FindAllString(text(t, f), -1)...)
	}
	for _, f := range examplePods {
		args = append(args, regexp.MustCompile(`- --[a-z][-a-z]+`).FindAllString(text(t, f), -1)...)
	}
	exec := regexp.MustCompile("(?m)^Exec=.*$").FindString(text(t, "examples/corax.container"))
	args = append(args, argument.FindAllString(exec, -1)...)
	for _, u := range units {
		exec := regexp.MustCompile("(?m)^ExecStart=.*$").FindString(text(t, filepath.Join("systemd", u)))
		args = append(args, argument.FindAllString(exec, -1)...)
	}
	n := 0
	for _, a := range args {
		name, isFlag := strings.CutPrefix(strings.TrimPrefix(a, "- "), "--")
		name, _, _ = strings.Cut(name, "=")
		if !isFlag {
			continue
		}
		n++
		if !known[name] {
			t.Errorf("corax has no flag --%s", name)
		}
	}
	if n < 20 {
		t.Errorf("only %d flags were found", n)
	}
}

var (
	argument = regexp.MustCompile(`--[a-z][-a-z]+`)
	flagName = regexp.MustCompile(`(?:\bflag: +|Var\([^,]+, )"([-a-z]+)"`)
)

// flags returns the names of all settings of the program, from its source.
func flags(t *testing.T) map[string]bool {
	t.Helper()
	known := map[string]bool{}
	for _, src := range sources(t, "../cmd/corax") {
		for _, m := range flagName.FindAllStringSubmatch(src, -1) {
			known[m[1]] = true
		}
	}
	return known
}

// sources returns the Go files of a folder that are no tests.
func sources(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range files {
		if !strings.HasSuffix(f, "_test.go") {
			all = append(all, text(t, f))
		}
	}
	if len(all) == 0 {
		t.Fatalf("no source in %s", dir)
	}
	return all
}

func text(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
