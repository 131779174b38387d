//go:build linux

package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/control/api/v1beta1"
	"corax/control/kube/gateway"
	"corax/integration/kube/cluster"
	"corax/integration/lab"
)

const (
	// crd is where the CustomResourceDefinition is in the checkout.
	crd = "deploy/crd"
	// profile is what is applied besides the CRD.
	profile = "deploy/manifests/profiles/net-admin"
	// poolLabel names the NodePool of a node.
	poolLabel = "apps.openyurt.io/nodepool"
	// servePort is where every pod listens.
	servePort = 8080
	// settle is how long a whole world, or a changed one, may take until all is
	// well: agents spread their first write over 10 s.
	settle = 2 * time.Minute
)

// world is a cluster of a cloud and three edges: a real control plane on a host
// of the cloud's LAN, a real controller, and real agents on some of the nodes.
//
//	control   API server, etcd, corax controller        (cloud LAN)
//	cloud     cloud-gw, cloud-1
//	edge-a    edge-a-gw, edge-a-1, edge-a-2              (behind a NAT)
//	edge-b    edge-b-gw, edge-b-1                        (behind a NAT)
//	edge-c    edge-c-gw                                  (behind a NAT)
type world struct {
	*lab.Topology
	c          *cluster.Cluster
	control    *lab.Host
	controller *lab.Process // the one started last
	agents     map[string]*lab.Agent
}

// population is how many nodes of each domain have an agent.
func population() map[string]int {
	return map[string]int{"cloud": 2, "edge-a": 3, "edge-b": 2, "edge-c": 1}
}

// newWorld builds it and waits until every pod reaches every domain.
func newWorld(t *testing.T) *world {
	t.Helper()
	cluster.Tools(t) // says so before a lab is built
	l := lab.ForTest(t)
	w := &world{agents: make(map[string]*lab.Agent)}
	w.Topology = lab.Standard(l, lab.Options{Edges: 3, Nodes: 3, NoCapture: true})
	t.Cleanup(func() { w.tell(t) })
	w.addControl(t)
	w.deploy(t)
	for _, n := range w.inhabited() {
		pod := n.Pods[0]
		if _, err := pod.Serve(servePort, pod.IP); err != nil {
			t.Fatal(err)
		}
		w.addAgent(t, n)
	}
	w.startController(t, "controller")
	w.waitWhole(t)
	return w
}

// inhabited are the nodes with an agent.
func (w *world) inhabited() []*lab.Node {
	var nodes []*lab.Node
	for _, d := range w.Domains {
		nodes = append(nodes, d.Nodes[:population()[d.Name]]...)
	}
	return nodes
}

// addControl makes the host of the control plane and starts it.
func (w *world) addControl(t *testing.T) {
	addr := netip.MustParseAddr("203.0.113.200")
	w.control = w.Lab.Host("control")
	w.control.Attach(w.Domains[0].LAN, "eth0", netip.PrefixFrom(addr, 25))
	w.control.Route(lab.Route{Dst: lab.Default(addr), Via: netip.MustParseAddr("203.0.113.129")})
	w.c = cluster.Start(t, cluster.Options{Host: w.control, Addr: addr})
}

// deploy applies what an operator would, and makes the Node objects.
func (w *world) deploy(t *testing.T) {
	w.c.Apply(t, crd)
	w.c.Apply(t, profile)
	w.c.ApplyYAML(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: raven-cfg, namespace: kube-system}, `+
		`data: {enable-l3-tunnel: "true", enable-l7-proxy: "true", acl-entry: ""}}`)
	for _, d := range w.Domains {
		for _, n := range d.Nodes[:population()[d.Name]] {
			node := cluster.Node{Name: n.Name, IPs: []netip.Addr{n.IP}, PodCIDRs: n.Subnets}
			if d.Hub {
				node.External = node.IPs
			} else {
				node.Labels = map[string]string{poolLabel: d.Name, "openyurt.io/is-edge-worker": "true"}
			}
			w.c.AddNode(t, node)
		}
	}
}

// addAgent starts the agent of a node as its Pod would be.
func (w *world) addAgent(t *testing.T, n *lab.Node) {
	t.Helper()
	account := "corax-agent"
	if strings.HasPrefix(n.Name, "cloud-") {
		account = "corax-hub"
	}
	a, err := n.Agent(lab.AgentConfig{NodeIP: n.IP, Kubeconfig: w.c.Kubeconfig(t, w.c.AgentConfig(t, n.Name, account))})
	if err != nil {
		t.Fatal(err)
	}
	w.agents[n.Name] = a
}

// startController starts a `corax controller` on the control plane's host.
func (w *world) startController(t *testing.T, name string) {
	t.Helper()
	bin, err := lab.Corax()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "controller", "--kubeconfig", w.c.Kubeconfig(t, w.c.AccountConfig(t, "corax-controller")),
		"--expose-cloud", "PublicIP", "--metrics-addr", "off", "--health-addr", "off")
	w.controller, err = w.control.Start(name, cmd)
	if err != nil {
		t.Fatal(err)
	}
}

// gateway returns a Gateway as the API server has it.
func (w *world) gateway(ctx context.Context, name string) (*gateway.Gateway, error) {
	g := &gateway.Gateway{}
	err := w.c.Client.RESTClient().Get().AbsPath("/apis/raven.openyurt.io/v1beta1/gateways", name).Do(ctx).Into(g)
	return g, err
}

// active returns the active tunnel endpoints of a domain.
func (w *world) active(ctx context.Context, domain string) ([]string, error) {
	g, err := w.gateway(ctx, domain)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range g.Status.ActiveEndpoints {
		if e.Type == v1beta1.TypeTunnel {
			names = append(names, e.NodeName)
		}
	}
	return names, nil
}

// theActive returns the one active tunnel endpoint of a domain.
func (w *world) theActive(t *testing.T, domain string) string {
	t.Helper()
	names, err := w.active(t.Context(), domain)
	if err != nil || len(names) != 1 {
		t.Fatalf("gateway %s: active are %v, %v", domain, names, err)
	}
	return names[0]
}

// waitWhole waits until every Gateway is ready with all its candidates eligible,
// and one pod of every inhabited node reaches one of every other domain.
func (w *world) waitWhole(t *testing.T) {
	t.Helper()
	for domain, n := range population() {
		cluster.Eventually(t, settle, "gateway "+domain, func(ctx context.Context) error { return w.healthy(ctx, domain, n) })
	}
	for _, from := range w.inhabited() {
		for _, to := range w.inhabited() {
			if from == to || domainOf(from) == domainOf(to) {
				continue
			}
			ctx, cancel := context.WithTimeout(t.Context(), settle)
			_, err := from.Pods[0].PingUntil(ctx, to.Pods[0].IP, lab.PingOptions{})
			cancel()
			if err != nil {
				t.Fatalf("from a pod of %s to one of %s: %v", from.Name, to.Name, err)
			}
		}
	}
}

// healthy reports what is wrong with a Gateway of n candidates, all of them well.
func (w *world) healthy(ctx context.Context, domain string, n int) error {
	g, err := w.gateway(ctx, domain)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(g.Status.Conditions, func(c metav1.Condition) bool { return c.Type == gateway.ConditionReady })
	if i < 0 {
		return errors.New("no condition Ready")
	}
	if c := g.Status.Conditions[i]; c.Status != metav1.ConditionTrue || c.Reason != "Active" {
		return fmt.Errorf("ready is %s, %s: %s", c.Status, c.Reason, c.Message)
	}
	if want := fmt.Sprintf("%d/%d", n, n); g.Status.Summary == nil || g.Status.Summary.Ready != want {
		return fmt.Errorf("summary is %+v, not ready %s", g.Status.Summary, want)
	}
	if len(g.Status.Nodes) != n {
		return fmt.Errorf("%d nodes, not %d", len(g.Status.Nodes), n)
	}
	for _, e := range g.Spec.Endpoints {
		if e.Config[v1beta1.ConfigPublicKey] == "" {
			return fmt.Errorf("node %s has published no key", e.NodeName)
		}
	}
	return nil
}

// tell logs, of a failed test, what the cluster and each agent say.
func (w *world) tell(t *testing.T) {
	if !t.Failed() || w.c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, _ := w.c.Kubectl(t, nil, "get", "gateways,leases", "-A", "-o", "wide", "--request-timeout=5s")
	t.Logf("kubectl get:\n%s", out)
	for name, a := range w.agents {
		status, _ := a.Command(ctx, "status", "-o", "wide") // exit code 1: a peer is away
		paths, _ := a.Get(ctx, "/v1/paths")
		t.Logf("corax status of %s:\n%s\npaths: %s", name, status, paths)
	}
}

// domainOf is the domain of a node by its name.
func domainOf(n *lab.Node) string { return n.Name[:strings.LastIndexByte(n.Name, '-')] }
