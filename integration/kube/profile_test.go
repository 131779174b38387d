//go:build linux

package kube_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"corax/integration/kube/cluster"
	"corax/integration/lab"
)

const profileGateway = `
apiVersion: raven.openyurt.io/v1beta1
kind: Gateway
metadata: {name: edge}
spec: {tunnelConfig: {Replicas: 1}, endpoints: [{nodeName: n, type: tunnel, underNAT: true}]}
status: {nodes: [{nodeName: n, privateIP: 192.0.2.7, subnets: [10.244.9.0/24]}]}
`

// TestDeployProfiles runs the agent with the arguments and the rights of each
// profile, as a container would: no capability but those added, no new
// privileges, sysctls read only.
func TestDeployProfiles(t *testing.T) {
	bin, err := lab.Corax()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		dir, datapath string
		capabilities  string // as the kernel shows them
		uid           int
	}{
		{netAdmin, "tun", "0000000000001000", 0},
		{unprivileged, "netstack", "0000000000000000", 65532},
	} {
		t.Run(filepath.Base(test.dir), func(t *testing.T) {
			c := agentContainer(t, test.dir)
			p := runContainer(t, bin, c, test.uid)
			var s struct {
				Datapath string `json:"datapath"`
				Role     string `json:"role"`
			}
			cluster.Eventually(t, 30*time.Second, "status", func(ctx context.Context) error {
				select {
				case err := <-p.ended:
					t.Fatalf("the agent ended: %v\n%s", err, p.log())
				default:
				}
				out, err := exec.CommandContext(ctx, bin, "status", "-o", "json", "--socket", p.socket).Output()
				if exit := (&exec.ExitError{}); err != nil && !errors.As(err, &exit) {
					return err
				}
				if err := json.Unmarshal(out, &s); err != nil {
					return err
				}
				if s.Role == "none" { // until the first plan is in force
					return fmt.Errorf("the agent has no role\n%s", p.log())
				}
				return nil
			})
			if s.Datapath != test.datapath {
				t.Errorf("datapath %s\n%s", s.Datapath, p.log())
			}
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{
				"CapEff:\t" + test.capabilities, "CapBnd:\t" + test.capabilities, "NoNewPrivs:\t1", fmt.Sprintf("Uid:\t%d\t", test.uid),
			} {
				if !strings.Contains(string(status), want) {
					t.Errorf("lacks %q:\n%s", want, status)
				}
			}
			if err := p.stop(); err != nil {
				t.Errorf("stopped: %v\n%s", err, p.log())
			}
		})
	}
}

// agentContainer returns the agent's container of a profile.
func agentContainer(t *testing.T, dir string) corev1.Container {
	t.Helper()
	b, err := os.ReadFile("../../" + dir + "/agents.yaml")
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := bytes.Cut(b, []byte("\n---\n"))
	var ds appsv1.DaemonSet
	if err := yaml.UnmarshalStrict(first, &ds); err != nil {
		t.Fatal(err)
	}
	return ds.Spec.Template.Spec.Containers[0]
}

// contained is a running agent.
type contained struct {
	pid    int
	socket string
	output string // file with what it wrote
	ended  chan error
}

// log returns what it wrote.
func (p *contained) log() string {
	b, err := os.ReadFile(p.output)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// stop stops it in order.
func (p *contained) stop() error {
	if err := syscall.Kill(p.pid, syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case err := <-p.ended:
		return err
	case <-time.After(20 * time.Second):
		return errors.New("it does not end")
	}
}

// runContainer runs the container's program in namespaces of its own.
func runContainer(t *testing.T, bin string, c corev1.Container, uid int) *contained {
	t.Helper()
	dir := t.TempDir()
	p := &contained{socket: filepath.Join(dir, "run/agent.sock"), output: filepath.Join(dir, "output"), ended: make(chan error, 1)}
	for _, d := range []string{"gateways", "lib", "run"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// A volume as kubelet makes it: of root, and of the group of the pod.
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"lib", "run"} {
		at := filepath.Join(dir, d)
		err := errors.Join(os.Chown(at, 0, uid), os.Chmod(at, 0o775|os.ModeSetgid))
		if errors.Is(err, syscall.EINVAL) && os.Getenv("CI") == "" {
			t.Skip("needs root: this user namespace has no other users")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	gateways := filepath.Join(dir, "gateways")
	if err := errors.Join(os.WriteFile(filepath.Join(gateways, "edge.yaml"), []byte(profileGateway), 0o644), os.Chmod(gateways, 0o755)); err != nil {
		t.Fatal(err)
	}
	args := []string{
		"--reuid", fmt.Sprint(uid), "--regid", fmt.Sprint(uid), "--clear-groups", "--no-new-privs",
		"--bounding-set", "-all" + added(c), "--inh-caps", "-all" + added(c), bin,
	}
	for _, a := range c.Args {
		a = strings.Replace(a, "/var/lib/corax", filepath.Join(dir, "lib"), 1)
		args = append(args, strings.Replace(a, "/run/corax", filepath.Join(dir, "run"), 1))
	}
	args = append(args, "--gateways", gateways, "--node-name", "n", "--node-ip", "192.0.2.7")
	const prepare = `ip link set lo up && ip address add 192.0.2.7/32 dev lo && mount --bind /proc/sys /proc/sys &&
		mount -o remount,ro,bind /proc/sys && exec setpriv "$@"`
	cmd := exec.Command("unshare", append([]string{"--net", "--mount", "sh", "-c", prepare, "sh"}, args...)...)
	out, err := os.Create(p.output)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.pid = cmd.Process.Pid
	done := make(chan struct{})
	go func() { p.ended <- cmd.Wait(); close(done) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	return p
}

// added returns the container's capabilities as setpriv takes them.
func added(c corev1.Container) string {
	s := ""
	for _, name := range c.SecurityContext.Capabilities.Add {
		s += ",+" + strings.ToLower(string(name))
	}
	return s
}
