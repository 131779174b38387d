//go:build linux

package kubelet

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/integration/kube/cluster"
	"corax/integration/lab"
)

// startWithin is how long a kubelet, or a Pod, may take until it is ready.
const startWithin = 2 * time.Minute

//go:embed machine.sh
var machine []byte

// Config is that of one kubelet.
type Config struct {
	Cluster *cluster.Cluster // with Options.Kubelets
	Node    *lab.Node        // named as its Node object, which may exist
	// SPDY makes the kubelet say nothing of WebSockets, as those before 1.36 do.
	SPDY bool
}

// Kubelet is a running one.
type Kubelet struct {
	cfg    Config
	dir    string
	cgroup string
	proc   *lab.Process
}

// Missing says in one line what this machine lacks for real kubelets; nil: nothing.
func Missing() error {
	if os.Getuid() != 0 {
		return errors.New("kubelet: real kubelets need root")
	}
	for _, program := range []string{"containerd", "ctr", "runc", busybox} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("kubelet: %w (integration/tools.sh installs it)", err)
		}
	}
	return hasCgroups()
}

// Need skips a test on a machine that lacks something, or fails it when CI is set.
func Need(t cluster.T) {
	t.Helper()
	err := Missing()
	switch {
	case err == nil:
	case os.Getenv("CI") != "":
		t.Fatalf("%v", err)
	default:
		t.Skipf("%v", err)
	}
}

// Start starts kubelets, each with a containerd, side by side, and waits until all
// are ready to run Pods and to be asked. They end with the test.
func Start(t cluster.T, configs ...Config) []*Kubelet {
	t.Helper()
	Need(t)
	var kubelets []*Kubelet
	for _, cfg := range configs {
		kubelets = append(kubelets, start(t, cfg))
	}
	for _, k := range kubelets {
		cluster.Eventually(t, startWithin, "the kubelet of "+k.cfg.Node.Name, k.ready)
	}
	return kubelets
}

func start(t cluster.T, cfg Config) *Kubelet {
	t.Helper()
	name := cfg.Node.Name
	k := &Kubelet{
		cfg: cfg, dir: filepath.Join(cfg.Node.Dir(), "machine"),
		cgroup: fmt.Sprintf("corax-%d-%s", os.Getpid(), name),
	}
	kubeconfig := cfg.Cluster.Kubeconfig(t, cfg.Cluster.UserConfig(t, "system:node:"+name, "system:nodes"))
	data, err := os.ReadFile(kubeconfig)
	if err == nil {
		err = errors.Join(os.MkdirAll(k.dir, 0o755), k.files(cfg.Cluster.CAFile(), data))
	}
	if err != nil {
		t.Fatalf("kubelet: files of %s: %v", name, err)
	}
	cmd := exec.Command(filepath.Join(k.dir, "machine.sh"), name, k.dir, k.cgroup, filepath.Join(cluster.Tools(t), "kubelet"))
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
	t.Cleanup(func() { k.close(t) })
	if k.proc, err = cfg.Node.Start("machine", cmd); err != nil {
		t.Fatalf("kubelet: %v", err)
	}
	return k
}

// close ends the machine: with its first process all others end.
func (k *Kubelet) close(t cluster.T) {
	if k.proc == nil {
		return
	}
	if err := errors.Join(k.proc.Kill(), removeCgroups(k.cgroup)); err != nil {
		t.Errorf("kubelet: end of %s: %v", k.cfg.Node.Name, err)
	}
}

// Dir has the logs containerd.log and kubelet.log.
func (k *Kubelet) Dir() string { return k.dir }

// ready approves the serving certificate and asks whether the kubelet has said that
// it is ready.
func (k *Kubelet) ready(ctx context.Context) error {
	select {
	case <-k.proc.Done():
		return fmt.Errorf("it ended: %w; see %s", k.proc.Err(), k.dir)
	default:
	}
	name := k.cfg.Node.Name
	if err := k.cfg.Cluster.ApproveServing(ctx, name); err != nil {
		return err
	}
	node, err := k.cfg.Cluster.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if node.Status.NodeInfo.KubeletVersion == "" {
		return errors.New("it has said nothing yet")
	}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue {
			return fmt.Errorf("%s: %s", c.Reason, c.Message)
		}
	}
	served, err := filepath.Glob(filepath.Join(k.dir, "pki", "kubelet-server-current.pem"))
	if err == nil && len(served) == 0 {
		err = errors.New("it has no serving certificate")
	}
	return err
}
