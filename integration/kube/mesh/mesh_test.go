//go:build linux

package mesh_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"corax/integration/kube/cluster"
	"corax/integration/kube/mesh"
)

// TestMesh lets a controller and agents make a mesh out of nothing but nodes, and
// looks at how they did it.
func TestMesh(t *testing.T) {
	w := newWorld(t)
	for _, n := range w.Nodes() {
		if err := w.Agent(n.Name).WaitStatus(t.Context(), untroubled); err != nil {
			t.Errorf("%s: %v", n.Name, err)
		}
	}

	// What agents wrote was allowed, and each wrote its own.
	for _, write := range w.Cluster.Writes(t, 0, func(w cluster.Write) bool {
		return strings.HasPrefix(w.User, "system:serviceaccount:kube-system:corax-")
	}) {
		if write.Code == 403 {
			t.Errorf("refused: %s", write)
		}
	}

	// A TCP transfer between domains behind NATs, over pods' real addresses.
	from, to := w.Node("edge-b-1").Pods[0], w.Node("edge-c-gw").Pods[0]
	at := netip.AddrPortFrom(to.IP, mesh.Port)
	if _, err := from.Transfer(t.Context(), at, 4<<20); err != nil {
		t.Error(err)
	}
	if saw, err := from.WhoAmI(t.Context(), "tcp", at); err != nil || saw != from.IP {
		t.Errorf("the server sees %s, not the pod %s: %v", saw, from.IP, err)
	}

	// kubectl shows people what there is.
	out, err := w.Cluster.Kubectl(t, nil, "get", "gateways")
	if err != nil {
		t.Fatal(errors.Join(err, errors.New(string(out))))
	}
	for _, domain := range w.names() {
		if !slices.ContainsFunc(strings.Split(string(out), "\n"), func(line string) bool {
			f := strings.Fields(line)
			return len(f) > 1 && f[0] == domain && f[1] == w.TheActive(t, domain)
		}) {
			t.Errorf("kubectl get gateways does not show the active node of %s:\n%s", domain, out)
		}
	}
}
