//go:build linux

package mesh

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
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
	// Port is where every pod has a server.
	Port = 8080
	// Settle is how long a whole world, or a changed one, may take until all is
	// well: agents spread their first write over 10 s.
	Settle = 2 * time.Minute
)

// Options vary a World.
type Options struct {
	// Nodes says how many nodes the cloud has, then each edge: 1 to 8.
	Nodes []int
	// NodePools makes NodePool objects, which say what is an edge. Without them a
	// label of its nodes does.
	NodePools bool
	// NAT of the edges; the zero value means MapKeepPort.
	NAT lab.NAT
	// ControlNode makes the last node of the cloud the one of the control plane, in
	// place of a host without agent. The API server is steered to the proxy there:
	// see FollowServices.
	ControlNode bool
	// Control is how the control plane is started; Host and Addr are the world's.
	Control cluster.Options
	// Replicas is how many endpoints of each type are active in a domain; 0 means 1.
	Replicas int
	// Agent, when not nil, may change how the agent of a node is started.
	Agent func(*lab.Node, *lab.AgentConfig)
}

// World is a cluster of several domains in a lab. Its methods do one step after
// the other of what New describes.
type World struct {
	*lab.Topology // agents are listed in the order in which they were started
	Cluster       *cluster.Cluster
	Control       *lab.Host
	Controller    *lab.Process // the one started last

	opt Options
}

// New makes the networks of a world, with a server in every pod: nodes "cloud-gw",
// "cloud-1", "edge-a-gw", "edge-a-1" and so on, the edges behind NATs, and, without Options.ControlNode, host
// "control" in the cloud's LAN. The lab says what failed.
func New(l *lab.Lab, opt Options) *World {
	w := &World{opt: opt}
	w.Topology = lab.Standard(l, lab.Options{Edges: len(opt.Nodes) - 1, Nodes: slices.Max(opt.Nodes), NAT: opt.NAT, NoCapture: true})
	for i, d := range w.Domains {
		d.Nodes = d.Nodes[:opt.Nodes[i]] // the others stay without a Node object
	}
	w.opt.Control.Host, w.opt.Control.Addr = w.control(l)
	w.Control = w.opt.Control.Host
	return w
}

// control returns the host of the control plane and its address.
func (w *World) control(l *lab.Lab) (*lab.Host, netip.Addr) {
	if w.opt.ControlNode {
		n := w.ControlNode()
		return n.Host, n.IP
	}
	addr := netip.MustParseAddr("203.0.113.200")
	h := l.Host("control")
	h.Attach(w.Domains[0].LAN, "eth0", netip.PrefixFrom(addr, 25))
	h.Route(lab.Route{Dst: lab.Default(addr), Via: netip.MustParseAddr("203.0.113.129")})
	return h, addr
}

// ControlNode returns the node that the control plane is on, with
// Options.ControlNode.
func (w *World) ControlNode() *lab.Node {
	nodes := w.Domains[0].Nodes
	return nodes[len(nodes)-1]
}

// StartControlPlane starts etcd and the API server on host "control".
func (w *World) StartControlPlane(t cluster.T) {
	t.Helper()
	if err := w.Lab.Err(); err != nil {
		t.Fatalf("%v", err)
	}
	if w.opt.ControlNode {
		w.steer(t)
	}
	w.Cluster = cluster.Start(t, w.opt.Control)
}

// Deploy applies what an operator would.
func (w *World) Deploy(t cluster.T) {
	t.Helper()
	w.Cluster.Apply(t, crd)
	w.Cluster.Apply(t, profile)
	w.Cluster.ApplyYAML(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: raven-cfg, namespace: kube-system}, `+
		`data: {enable-l3-tunnel: "true", enable-l7-proxy: "true", acl-entry: ""}}`)
}

// AddNodes makes the Node objects, after the NodePools when there are any.
func (w *World) AddNodes(t cluster.T) {
	t.Helper()
	if w.opt.NodePools {
		w.addPools(t)
	}
	for _, d := range w.Domains {
		for _, n := range d.Nodes {
			node := cluster.Node{Name: n.Name, IPs: []netip.Addr{n.IP}, PodCIDRs: n.Subnets}
			switch {
			case d.Hub:
				node.External = node.IPs
				if w.opt.ControlNode && n == w.ControlNode() {
					node.Labels = map[string]string{"node-role.kubernetes.io/control-plane": ""}
				}
			case w.opt.NodePools:
				node.Labels = map[string]string{poolLabel: d.Name}
			default:
				node.Labels = map[string]string{poolLabel: d.Name, "openyurt.io/is-edge-worker": "true"}
			}
			w.Cluster.AddNode(t, node)
		}
	}
}

// StartAgents starts a server in the pod and an agent on every node.
func (w *World) StartAgents(t cluster.T) {
	t.Helper()
	for _, d := range w.Domains {
		for _, n := range d.Nodes {
			pod := n.Pods[0]
			if _, err := pod.Serve(Port, pod.IP); err != nil {
				t.Fatalf("%v", err)
			}
			d.Agents = append(d.Agents, w.startAgent(t, d, n))
		}
	}
}

// startAgent starts the agent of a node as its Pod would be.
func (w *World) startAgent(t cluster.T, d *lab.Domain, n *lab.Node) *lab.Agent {
	t.Helper()
	account := "corax-agent"
	if d.Hub {
		account = "corax-hub"
	}
	file := w.Cluster.Kubeconfig(t, w.Cluster.AgentConfig(t, n.Name, account))
	cfg := lab.AgentConfig{NodeIP: n.IP, Kubeconfig: file}
	if w.opt.Agent != nil {
		w.opt.Agent(n, &cfg)
	}
	a, err := n.Agent(cfg)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return a
}

// StartController starts a `corax controller` on host "control", with its output
// in a log of that name.
func (w *World) StartController(t cluster.T, name string) {
	t.Helper()
	bin, err := lab.Corax()
	if err != nil {
		t.Fatalf("%v", err)
	}
	file := w.Cluster.Kubeconfig(t, w.Cluster.AccountConfig(t, "corax-controller"))
	cmd := exec.Command(bin, "controller", "--kubeconfig", file,
		"--expose-cloud", "PublicIP", "--metrics-addr", "off", "--health-addr", "off")
	if n := w.opt.Replicas; n > 0 {
		cmd.Args = append(cmd.Args, fmt.Sprintf("--proxy-replicas=%d", n), fmt.Sprintf("--tunnel-replicas=%d", n))
	}
	if w.Controller, err = w.Control.Start(name, cmd); err != nil {
		t.Fatalf("%v", err)
	}
}

// Gateway returns a Gateway as the API server has it.
func (w *World) Gateway(ctx context.Context, name string) (*gateway.Gateway, error) {
	g := &gateway.Gateway{}
	err := w.Cluster.Client.RESTClient().Get().AbsPath("/apis/raven.openyurt.io/v1beta1/gateways", name).Do(ctx).Into(g)
	return g, err
}

// Active returns the nodes of the active tunnel endpoints of a domain.
func (w *World) Active(ctx context.Context, domain string) ([]string, error) {
	g, err := w.Gateway(ctx, domain)
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

// TheActive returns the one active node of a domain.
func (w *World) TheActive(t cluster.T, domain string) string {
	t.Helper()
	names, err := w.Active(t.Context(), domain)
	if err != nil || len(names) != 1 {
		t.Fatalf("gateway %s: active are %v, %v", domain, names, err)
	}
	return names[0]
}

// WaitHealthy waits until every Gateway is.
func (w *World) WaitHealthy(t cluster.T) {
	t.Helper()
	for _, d := range w.Domains {
		cluster.Eventually(t, Settle, "gateway "+d.Name, func(ctx context.Context) error { return w.Healthy(ctx, d) })
	}
}

// Healthy reports what is wrong with the Gateway of a domain: it is ready, has all
// nodes, all of them candidates that can carry traffic, and their keys.
func (w *World) Healthy(ctx context.Context, d *lab.Domain) error {
	g, err := w.Gateway(ctx, d.Name)
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
	n := len(d.Nodes)
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

// WaitReach waits until a pod of every node reaches one of each node of every
// other domain.
func (w *World) WaitReach(t cluster.T) {
	t.Helper()
	for _, from := range w.Domains {
		for _, to := range w.Domains {
			if from != to {
				w.waitReach(t, from, to)
			}
		}
	}
}

func (w *World) waitReach(t cluster.T, from, to *lab.Domain) {
	t.Helper()
	for _, a := range from.Nodes {
		for _, b := range to.Nodes {
			ctx, cancel := context.WithTimeout(t.Context(), Settle)
			_, err := a.Pods[0].PingUntil(ctx, b.Pods[0].IP, lab.PingOptions{})
			cancel()
			if err != nil {
				t.Fatalf("from a pod of %s to one of %s: %v", a.Name, b.Name, err)
			}
		}
	}
}
