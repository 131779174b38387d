//go:build linux

package kubelet_test

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"corax/integration/kube/cluster"
	"corax/integration/kube/kubelet"
	"corax/integration/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

// TestKubelet runs a real kubelet beside a control plane, without any proxy.
func TestKubelet(t *testing.T) {
	cluster.Tools(t)
	kubelet.Need(t)
	l := lab.ForTest(t)
	n := l.Node(lab.NodeConfig{Name: "one"})
	n.AttachNode(l.LAN("lan", 0), netip.MustParsePrefix("192.168.1.10/24"))
	n.Route(lab.Route{Dst: lab.Default(n.IP), Via: netip.MustParseAddr("192.168.1.1")})
	if err := n.ServeDNS(netip.MustParseAddr("127.0.0.1"), map[string][]netip.Addr{"one": {n.IP}}); err != nil {
		t.Fatal(err)
	}
	n.Resolv(netip.MustParseAddr("127.0.0.1"))
	c := cluster.Start(t, cluster.Options{
		Host: n.Host, Addr: n.IP, Kubelets: true, Controllers: []string{cluster.SigningController},
	})
	k := kubelet.Start(t, kubelet.Config{Cluster: c, Node: n})[0]
	k.Pod(t, "web", kubelet.Container{Name: "main", Command: []string{"sh", "-c", "echo hello; sleep 1000"}})
	k.WaitPod(t, "web")
	for _, test := range []struct{ args, want string }{
		{"logs web", "hello"},
		{"exec web -- hostname", "one"},
		{"get --raw /api/v1/nodes/one/proxy/healthz", "ok"},
	} {
		out, err := c.Kubectl(t, nil, strings.Fields(test.args)...)
		if err != nil || strings.TrimSpace(string(out)) != test.want {
			t.Errorf("kubectl %s: %q, %v", test.args, out, err)
		}
	}
}
