//go:build linux

package cluster

import (
	"bytes"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Apply applies manifests as an administrator: files or folders (of a
// kustomization, or of manifests), relative to the top of the checkout.
// CustomResourceDefinitions among them are established when it returns.
func (c *Cluster) Apply(t T, files ...string) {
	t.Helper()
	for _, f := range files {
		f = path(t, f)
		how := "-f"
		if unix.Access(filepath.Join(f, "kustomization.yaml"), unix.F_OK) == nil {
			how = "-k"
		}
		if out, err := c.Kubectl(t, nil, "apply", "--server-side", how, f); err != nil {
			t.Fatalf("cluster: apply %s: %v\n%s", f, err, out)
		}
	}
	c.established(t)
}

// ApplyYAML applies manifests given as text.
func (c *Cluster) ApplyYAML(t T, manifests string) {
	t.Helper()
	if out, err := c.Kubectl(t, []byte(manifests), "apply", "--server-side", "-f", "-"); err != nil {
		t.Fatalf("cluster: apply: %v\n%s", err, out)
	}
	c.established(t)
}

// established waits until every CustomResourceDefinition is served.
func (c *Cluster) established(t T) {
	t.Helper()
	out, err := c.Kubectl(t, nil, "get", "crd", "-o", "name")
	if err != nil {
		t.Fatalf("cluster: %v\n%s", err, out)
	}
	if len(bytes.TrimSpace(out)) == 0 {
		return
	}
	if out, err := c.Kubectl(t, nil, "wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"); err != nil {
		t.Fatalf("cluster: %v\n%s", err, out)
	}
}

// Kubectl runs kubectl as an administrator with some standard input and returns
// what it wrote, to standard error too.
func (c *Cluster) Kubectl(t T, stdin []byte, args ...string) ([]byte, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := c.KubectlCommand(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &out
	if c.opt.Host == nil {
		err := cmd.Run()
		return out.Bytes(), err
	}
	p, err := c.opt.Host.Start("kubectl", cmd)
	if err != nil {
		return nil, err
	}
	<-p.Done()
	return out.Bytes(), p.Err()
}

// KubectlCommand returns a kubectl of an administrator, to be started where the API
// server can be reached.
func (c *Cluster) KubectlCommand(args ...string) *exec.Cmd {
	own := []string{"--kubeconfig=" + c.file("admin.kubeconfig"), "--cache-dir=" + c.file("kubectl")}
	return exec.Command(filepath.Join(c.tools, "kubectl"), append(own, args...)...)
}
