package election

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/control/api/v1beta1"
)

func object(change func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{}, Annotations: map[string]string{}}}
	change(n)
	return n
}

func TestReadNode(t *testing.T) {
	address := func(kind corev1.NodeAddressType, a string) corev1.NodeAddress {
		return corev1.NodeAddress{Type: kind, Address: a}
	}
	for _, tt := range []struct {
		name   string
		change func(*corev1.Node)
		want   Node
	}{
		{"an empty node", func(*corev1.Node) {}, Node{}},
		{"Ready", func(n *corev1.Node) {
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		}, Node{Ready: true}},
		{"Unknown is not Ready", func(n *corev1.Node) {
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionUnknown}}
		}, Node{}},
		{"cordoned, pinned, with zone", func(n *corev1.Node) {
			n.Spec.Unschedulable = true
			n.Labels[v1beta1.LabelGatewayNode], n.Labels[LabelZone] = "true", "z"
		}, Node{Cordoned: true, Pinned: true, Zone: "z"}},
		{"pinned with another value is not pinned", func(n *corev1.Node) { n.Labels[v1beta1.LabelGatewayNode] = "yes" }, Node{}},
		{"taints do not count", func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "node.kubernetes.io/unschedulable", Effect: corev1.TaintEffectNoSchedule}}
		}, Node{}},
		{"the first InternalIP that is one", func(n *corev1.Node) {
			n.Status.Addresses = []corev1.NodeAddress{
				address(corev1.NodeHostName, "n"), address(corev1.NodeExternalIP, "192.0.2.1"),
				address(corev1.NodeInternalIP, "x"), address(corev1.NodeInternalIP, "127.0.0.1"),
				address(corev1.NodeInternalIP, "10.0.0.1"), address(corev1.NodeInternalIP, "fd00::1"),
			}
		}, Node{PrivateIP: "10.0.0.1"}},
		{"podCIDRs of both families", func(n *corev1.Node) {
			n.Spec.PodCIDR, n.Spec.PodCIDRs = "10.1.0.0/24", []string{"10.1.0.0/24", "fd01::/64"}
		}, Node{Subnets: []string{"10.1.0.0/24", "fd01::/64"}}},
		{"podCIDR of an old server", func(n *corev1.Node) { n.Spec.PodCIDR = "10.1.0.7/24" }, Node{Subnets: []string{"10.1.0.0/24"}}},
		{"bad podCIDRs are left out", func(n *corev1.Node) {
			n.Spec.PodCIDRs = []string{"0.0.0.0/0", "x", "10.1.0.0/24", "127.0.0.0/24"}
		}, Node{Subnets: []string{"10.1.0.0/24"}}},
		{"Calico", func(n *corev1.Node) { n.Annotations["projectcalico.org/IPv4Address"] = "10.0.0.1/24" }, Node{Calico: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Name = "n"
			got := ReadNode(object(tt.change))
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			if empty := (Node{Name: "n"}); got.Equal(empty) != cmp.Equal(got, empty) {
				t.Errorf("Equal does not see the difference between %+v and %+v", got, empty)
			}
		})
	}
}

func TestReadLease(t *testing.T) {
	text := func(s string) *string { return &s }
	number := func(n int32) *int32 { return &n }
	at := time.Unix(1_700_000_000, 123_000)
	why := map[string]string{v1beta1.AnnotationReason: "device down"}
	for _, tt := range []struct {
		name        string
		spec        coordinationv1.LeaseSpec
		annotations map[string]string
		want        Lease
	}{
		{"an empty one", coordinationv1.LeaseSpec{}, nil, Lease{Released: true, Duration: defaultDuration}},
		{"held", coordinationv1.LeaseSpec{
			HolderIdentity: text("n"), LeaseDurationSeconds: number(6), RenewTime: &metav1.MicroTime{Time: at},
		}, nil, Lease{Renewed: at, Duration: 6 * time.Second}},
		{"held: an old reason does not count", coordinationv1.LeaseSpec{HolderIdentity: text("n")}, why, Lease{Duration: defaultDuration}},
		{
			"released",
			coordinationv1.LeaseSpec{HolderIdentity: text(""), LeaseDurationSeconds: number(6)},
			why,
			Lease{Released: true, Reason: "device down", Duration: 6 * time.Second},
		},
		{
			"impossible durations",
			coordinationv1.LeaseSpec{HolderIdentity: text("n"), LeaseDurationSeconds: number(-1)},
			nil,
			Lease{Duration: defaultDuration},
		},
		{
			"nobody may be silent for days",
			coordinationv1.LeaseSpec{HolderIdentity: text("n"), LeaseDurationSeconds: number(1 << 30)},
			nil,
			Lease{Duration: maxDuration},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "n", Annotations: tt.annotations}, Spec: tt.spec}
			if d := cmp.Diff(tt.want, ReadLease(l)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestReadBlock(t *testing.T) {
	for _, tt := range []struct {
		name string
		spec map[string]any
		want Block
	}{
		{"confirmed", map[string]any{"node": "n", "state": "confirmed", "cidr": "10.1.2.64/26", "deleted": "false"}, Block{"n", "10.1.2.64/26"}},
		{"both families", map[string]any{"node": "n", "state": "confirmed", "cidr": "fd01::40/122"}, Block{"n", "fd01::40/122"}},
		{"pending", map[string]any{"node": "n", "state": "pending", "cidr": "10.1.2.64/26"}, Block{}},
		{"being deleted", map[string]any{"node": "n", "state": "confirmed", "cidr": "10.1.2.64/26", "deleted": "true"}, Block{}},
		{"being deleted, in newer words", map[string]any{"node": "n", "state": "confirmed", "cidr": "10.1.2.64/26", "deleted": true}, Block{}},
		{"of nobody", map[string]any{"state": "confirmed", "cidr": "10.1.2.64/26"}, Block{}},
		{"of everything", map[string]any{"node": "n", "state": "confirmed", "cidr": "0.0.0.0/0"}, Block{}},
		{"of another form", map[string]any{"node": 7, "state": []any{}, "cidr": nil}, Block{}},
		{"empty", nil, Block{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := ReadBlock(map[string]any{"spec": tt.spec}); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func FuzzExtraCIDRs(f *testing.F) {
	for _, s := range []string{"", "10.0.0.0/8", "10.0.0.0/8, fd00::/8,", " , ", "10.0.0.0/33", "::ffff:10.0.0.0/104"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		g := v1beta1.Gateway{Metadata: v1beta1.ObjectMeta{Annotations: map[string]string{v1beta1.AnnotationExtraCIDRs: s}}}
		list, err := ExtraCIDRs(&g)
		if err != nil && len(err.Error()) > 300 {
			t.Errorf("an error of %d characters", len(err.Error()))
		}
		for i, c := range list {
			p, err := v1beta1.ParseSubnet(c)
			if err != nil || p.String() != c {
				t.Errorf("%q: %q is no subnet", s, c)
			}
			for _, d := range list[:i] {
				if d == c {
					t.Errorf("%q: %q twice", s, c)
				}
			}
		}
	})
}
