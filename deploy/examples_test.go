package deploy

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"corax/control"
	"corax/control/file"
)

// examplePods are the examples for Kubernetes, and the containers in each that are
// agents.
var examplePods = []string{"examples/kubernetes/deployment.yaml", "examples/kubernetes/sidecar.yaml"}

// TestExamplePods checks the examples for Kubernetes as PodSecurity "restricted" does.
// A real API server judges them too, in integration/kube.
func TestExamplePods(t *testing.T) {
	for _, name := range examplePods {
		agents := 0
		for _, o := range read(t, name) {
			if o.Kind != "Deployment" {
				continue
			}
			var w struct {
				Spec struct {
					Replicas int               `yaml:"replicas"`
					Strategy map[string]string `yaml:"strategy"`
					Template struct {
						Spec podSpec `yaml:"spec"`
					} `yaml:"template"`
				} `yaml:"spec"`
			}
			o.into(t, &w)
			pod := &w.Spec.Template.Spec
			if w.Spec.Replicas != 1 || w.Spec.Strategy["type"] != "Recreate" {
				t.Errorf("%s: two pods with one key", name)
			}
			for _, why := range unrestricted(pod) {
				t.Errorf("%s: %s", name, why)
			}
			checkSysctls(t, o, pod, true)
			for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
				if len(c.Args) > 0 && c.Args[0] == "agent" {
					agents++
				}
			}
		}
		if agents != 1 {
			t.Errorf("%s: %d agents", name, agents)
		}
	}
}

// unrestricted says what PodSecurity "restricted" would refuse of a pod.
func unrestricted(pod *podSpec) (why []string) {
	if pod.HostNetwork || pod.HostPID || pod.HostIPC || len(pod.hostPaths()) > 0 {
		why = append(why, "it shares something with the host")
	}
	s := pod.SecurityContext
	if !is(s.RunAsNonRoot, true) || s.RunAsUser == nil || *s.RunAsUser == 0 || s.SeccompProfile["type"] != "RuntimeDefault" {
		why = append(why, "its user, or seccomp")
	}
	allowed := []string{"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret", "downwardAPI", "csi", "ephemeral"}
	for _, v := range pod.Volumes {
		for kind := range v {
			if kind != "name" && !slices.Contains(allowed, kind) {
				why = append(why, "a volume of kind "+kind)
			}
		}
	}
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		s := &c.SecurityContext
		if s.Privileged != nil || !is(s.AllowPrivilegeEscalation, false) || !is(s.ReadOnlyRootFilesystem, true) || s.RunAsUser != nil ||
			!slices.Equal(s.Capabilities.Drop, []string{"ALL"}) || len(s.Capabilities.Add) > 0 {
			why = append(why, "the security context of container "+c.Name)
		}
	}
	return why
}

// TestUnrestricted: what the examples must not have is found.
func TestUnrestricted(t *testing.T) {
	for _, tt := range []struct{ name, old, neu string }{
		{"root", "runAsNonRoot: true", "runAsNonRoot: false"},
		{"no seccomp", "type: RuntimeDefault", "type: Unconfined"},
		{"a capability", "drop: [ALL]", "drop: [ALL], add: [NET_ADMIN]"},
		{"capabilities left", "drop: [ALL]", "drop: [NET_RAW]"},
		{"new privileges", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"},
		{"the host's network", "automountServiceAccountToken: false", "hostNetwork: true"},
		{"a host path", "configMap: {name: corax-gateways}", "hostPath: {path: /etc}"},
	} {
		for _, name := range examplePods {
			b := text(t, name)
			changed := strings.Replace(b, tt.old, tt.neu, 1)
			at := filepath.Join(t.TempDir(), "x.yaml")
			if err := os.WriteFile(at, []byte(changed), 0o600); err != nil || changed == b {
				t.Fatalf("%s of %s: %v", tt.name, name, err)
			}
			var w workload
			read(t, at)[0].into(t, &w)
			if len(unrestricted(&w.Spec.Template.Spec)) == 0 {
				t.Errorf("%s of %s passes", tt.name, name)
			}
		}
	}
}

// TestExampleContainers: the agents of the examples for Docker and Podman have no right,
// and both are the same.
func TestExampleContainers(t *testing.T) {
	unit, script := text(t, "examples/corax.container"), text(t, "examples/docker.sh")
	for _, want := range []string{
		"User=65532", "Group=65532", "DropCapability=all", "NoNewPrivileges=true", "ReadOnly=true", "Network=host",
		"Volume=corax-state:/var/lib/corax", "WantedBy=default.target",
	} {
		if !strings.Contains(unit, "\n"+want+"\n") {
			t.Errorf("the unit lacks %s", want)
		}
	}
	if strings.Contains(unit, "AddCapability") || strings.Contains(script, "--cap-add") || strings.Contains(script, "--privileged") {
		t.Error("an example adds a right")
	}
	for _, want := range []string{
		"--user 65532:65532", "--cap-drop ALL", "--security-opt no-new-privileges", "--read-only", "--network host",
		"--restart unless-stopped", "/etc/corax/gateways:ro",
	} {
		if !strings.Contains(script, want) {
			t.Errorf("the script lacks %s", want)
		}
	}
	arguments := func(s string) string {
		return strings.Join(strings.Fields(strings.ReplaceAll(regexp.MustCompile(`(?s)agent --node-name.*?--uapi=false`).FindString(s), "\\\n", " ")), " ")
	}
	if a, b := arguments(unit), arguments(script); a != b || a == "" {
		t.Errorf("the unit runs\n%s\nand the script\n%s", a, b)
	}
	if out, err := exec.Command("sh", "-n", "examples/docker.sh").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestExampleGateways reads the Gateways of the examples as an agent does: nothing is
// wrong with them, and each of the example's nodes is a gateway node.
func TestExampleGateways(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got control.Snapshot
	s, err := file.New(file.Config{Dir: "examples/gateways", Update: func(s control.Snapshot) { got = s; cancel() }})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if len(got.Gateways) != 3 {
		t.Fatalf("%d Gateways", len(got.Gateways))
	}
	for _, g := range got.Gateways {
		node := g.Spec.Endpoints[0].NodeName
		d := control.Plan(got, control.Local{Node: node})
		if d.Role != control.RoleGateway {
			t.Errorf("%s is %v", node, d.Role)
		}
		for _, p := range d.Problems {
			if !strings.Contains(p.String(), "not the public key of node") { // the key is the agent's own
				t.Errorf("%s: %s", node, p)
			}
		}
		uses := 0
		for _, name := range append([]string{"examples/corax.container", "examples/docker.sh"}, examplePods...) {
			uses += strings.Count(text(t, name), node)
		}
		if node != "cloud-gw" && uses < 2 {
			t.Errorf("%s is the node of %d examples", node, uses)
		}
	}
}
