//go:build linux

package proxy_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/integration/kube/cluster"
	"corax/integration/kube/kubelet"
	"corax/integration/kube/mesh"
	"corax/integration/lab"
)

// rootless is the one gateway node of edge-b, whose agent may do nothing on its host.
const rootless = "edge-b-gw"

// nobody is a user that owns nothing and may do nothing.
const nobody = 65534

// world is a cluster with tunnel mode off:
//
//	cloud     cloud-gw; cloud-1 with a kubelet; cloud-2, the control plane
//	edge-a    edge-a-gw; edge-a-1 with a kubelet, 192.168.1.11    (behind a NAT)
//	edge-b    edge-b-gw, rootless; edge-b-1 as edge-a-1           (behind a NAT)
//	edge-c    edge-c-gw, alone, with a kubelet                    (behind a NAT)
//
// The fronts are cloud-gw and cloud-2. The API server knows the nodes by the hosts file that the agent of cloud-2 keeps.
type world struct {
	*mesh.World
	kubelets map[string]*kubelet.Kubelet
	client   *http.Client // where the control plane is
	roots    *x509.CertPool
	failed   []string // parts of the test, for tell
}

// fronts are the gateway nodes of the cloud.
func fronts() []string { return []string{"cloud-gw", "cloud-2"} }

// kubeletNodes have a kubelet each. That of edge-b-1 says nothing of WebSockets, so
// the API server speaks SPDY to it.
func kubeletNodes() []string { return []string{"edge-a-1", "edge-b-1", "edge-c-gw", "cloud-1"} }

// newWorld builds it, with a Pod "web-NODE" for each kubelet, and waits until the
// API server reaches every kubelet.
func newWorld(t *testing.T) *world {
	t.Helper()
	cluster.Tools(t) // says so before a lab is built
	kubelet.Need(t)
	w := &world{kubelets: make(map[string]*kubelet.Kubelet)}
	w.World = mesh.New(lab.ForTest(t), mesh.Options{
		Nodes: []int{3, 2, 2, 1}, ControlNode: true, Replicas: 2,
		Control: cluster.Options{Kubelets: true, Controllers: []string{cluster.SigningController}},
		Agent: func(n *lab.Node, cfg *lab.AgentConfig) {
			switch n.Name {
			case rootless:
				unprivileged(t, n, cfg)
			case "cloud-2":
				cfg.Args = append(cfg.Args, "--proxy-connect-socket", socket(n), "--proxy-connect-cluster", "10.96.0.0/12,"+n.IP.String())
			case "cloud-gw":
				cert, key := w.Cluster.IssueServing(t, n.Name, n.IP)
				cfg.Args = append(cfg.Args, "--proxy-connect-cert", cert, "--proxy-connect-key", key,
					"--proxy-connect-client-ca", w.Cluster.CAFile(), "--proxy-connect-client", "egress")
			}
		},
	})
	w.StartControlPlane(t)
	t.Cleanup(func() { w.tell(t) }) // while it still runs
	w.Deploy(t)
	w.patch(t, "configmap", "raven-cfg", `{"data": {"enable-l3-tunnel": "false"}}`)
	w.AddNodes(t)
	for _, name := range append(fronts(), rootless) {
		w.Cluster.Label(t, name, map[string]string{"raven.openyurt.io/gateway-node": "true"})
	}
	w.StartController(t, "controller")
	w.StartAgents(t)
	w.FollowServices(t, w.ControlNode())
	w.client, w.roots = w.newClient(), w.readRoots(t)
	w.serveExporters(t)
	w.startKubelets(t)
	w.openPorts(t)
	for _, name := range kubeletNodes() {
		w.kubelets[name].WaitPod(t, pod(name))
	}
	// A node that was labelled into the domain first was active first.
	cluster.Eventually(t, mesh.Settle, rootless+" alone active", func(ctx context.Context) error {
		g, err := w.Gateway(ctx, "edge-b")
		if err != nil {
			return err
		}
		if active := g.Status.ActiveEndpoints; len(active) != 1 || active[0].NodeName != rootless {
			return fmt.Errorf("active are %+v", active)
		}
		return nil
	})
	w.waitProxied(t)
	return w
}

// unprivileged makes an agent one of nobody, without a TUN.
func unprivileged(t *testing.T, n *lab.Node, cfg *lab.AgentConfig) {
	t.Helper()
	data, err := os.ReadFile(cfg.Kubeconfig)
	must(t, err)
	cfg.Kubeconfig = filepath.Join(n.Dir(), "kubeconfig")
	must(t, os.WriteFile(cfg.Kubeconfig, data, 0o644))
	must(t, os.Chmod(n.Lab().Dir(), 0o755))
	must(t, os.Chown(n.Dir(), nobody, nobody))
	cfg.Args = append(cfg.Args, "--datapath", "netstack")
	cfg.Attr = syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
}

// pod is the name of the Pod on a node.
func pod(node string) string { return "web-" + node }

// startKubelets starts them, each with a Pod: container "main" counts, "echo"
// repeats what it is told.
func (w *world) startKubelets(t *testing.T) {
	t.Helper()
	var configs []kubelet.Config
	for _, name := range kubeletNodes() {
		configs = append(configs, kubelet.Config{Cluster: w.Cluster, Node: w.Node(name), SPDY: name == "edge-b-1"})
	}
	for i, k := range kubelet.Start(t, configs...) {
		name := kubeletNodes()[i]
		w.kubelets[name] = k
		count := fmt.Sprintf("i=0; while :; do echo %s $i; i=$((i+1)); sleep 0.1; done", name)
		k.Pod(t, pod(name), kubelet.Container{Name: "main", Command: []string{"sh", "-c", count}},
			kubelet.Container{Name: "echo", Command: []string{"cat"}, Stdin: true})
	}
}

// openPorts lists what Prometheus and others read besides the kubelet.
func (w *world) openPorts(t *testing.T) {
	t.Helper()
	for _, d := range w.Domains {
		cluster.Eventually(t, time.Minute, "gateway "+d.Name, func(ctx context.Context) error {
			_, err := w.Gateway(ctx, d.Name)
			return err
		})
		w.patch(t, "gateway", d.Name, `{"spec": {"proxyConfig": {"proxyHTTPPort": "10255,9100,9445"}}}`)
	}
}

// patch changes an object of kube-system, or of none, by a merge patch.
func (w *world) patch(t *testing.T, kind, name, patch string) {
	t.Helper()
	if out, err := w.Cluster.Kubectl(t, nil, "-n", "kube-system", "patch", kind, name, "--type=merge", "-p", patch); err != nil {
		t.Fatalf("kubectl patch %s %s: %v: %s", kind, name, err, out)
	}
}

// waitProxied waits until each front leads to each kubelet, and the API server finds
// its way.
func (w *world) waitProxied(t *testing.T) {
	t.Helper()
	for _, node := range kubeletNodes() {
		for _, front := range fronts() {
			cluster.Eventually(t, mesh.Settle, "the way by "+front+" to "+node, func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, atOnce)
				defer cancel()
				return w.shake(ctx, netip.AddrPortFrom(w.Node(front).IP, 10281), node)
			})
		}
		cluster.Eventually(t, mesh.Settle, "the API server's way to "+node, func(ctx context.Context) error { return w.ask(ctx, node, atOnce) })
	}
	cluster.Eventually(t, mesh.Settle, "both fronts in the Service", func(ctx context.Context) error {
		list, err := w.Cluster.Client.DiscoveryV1().EndpointSlices("kube-system").List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=x-raven-proxy-internal-svc"})
		if err != nil {
			return err
		}
		n := 0
		for _, s := range list.Items {
			n += len(s.Endpoints)
		}
		if n < len(fronts()) {
			err = fmt.Errorf("%d of %d", n, len(fronts()))
		}
		return err
	})
}

// hosts is the file that the agent of the control plane's node keeps.
func (w *world) hosts() string { return filepath.Join(w.ControlNode().Dir(), "state", "hosts") }

// tell logs, of a failed test, what the cluster and each agent say, in short: it must
// not bury what failed.
func (w *world) tell(t *testing.T) {
	if !t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, _ := w.Cluster.Kubectl(t, nil, "get", "gateways,leases,endpointslices,csr", "-A", "--no-headers", "--request-timeout=5s")
	t.Logf("what failed: %q; kubectl get:\n%s", w.failed, out)
	for _, a := range w.Agents() {
		s, err := a.Status(ctx)
		if err != nil {
			t.Logf("agent of %s: %v", a.Host.Name, err)
			continue
		}
		var away []string
		for _, p := range s.Peers {
			if p.Path.Kind != "direct" || p.LastHandshake.IsZero() {
				away = append(away, p.Node+" "+p.Path.Kind+": "+p.Path.Why)
			}
		}
		t.Logf("agent of %s: problems %q, paths that are not direct %q", a.Host.Name, s.Problems, away)
	}
	for name, k := range w.kubelets {
		b, _ := os.ReadFile(filepath.Join(k.Dir(), "kubelet.log"))
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		t.Logf("kubelet of %s: %s", name, lines[len(lines)-1])
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
