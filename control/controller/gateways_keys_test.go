package controller

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"corax/control/api/v1beta1"
	"corax/control/kube/gateway"
)

const otherTestKey = "//////////////////////////////////////////8="

// say has the agents of a Gateway's nodes write these keys.
func (w *world) say(name, key, next string) {
	w.t.Helper()
	change(w, &gateway.Gateway{ObjectMeta: metav1.ObjectMeta{Name: name}}, func(g *gateway.Gateway) {
		for i := range g.Spec.Endpoints {
			g.Spec.Endpoints[i].Config = map[string]string{v1beta1.ConfigPublicKey: key}
			if next != "" {
				g.Spec.Endpoints[i].Config[v1beta1.ConfigNextPublicKey] = next
			}
		}
	})
	time.Sleep(statusGap)
	w.once(name)
	w.once(name)
}

// copied returns the keys that status has of a Gateway's active node.
func (w *world) copied(name string) (key, next string) {
	w.t.Helper()
	for _, e := range w.get(name).Status.ActiveEndpoints {
		key, next = e.Config[v1beta1.ConfigPublicKey], e.Config[v1beta1.ConfigNextPublicKey]
	}
	return key, next
}

// TestCopiedKey has the node of one Gateway write the keys of another's.
func TestCopiedKey(t *testing.T) {
	for _, stolen := range []struct{ key, next string }{
		{testKey, ""}, {otherTestKey, ""}, {"", testKey},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, ourGateway("victim", "pool/v"), ourGateway("a-thief", "pool/t"), readyNode("v", "victim", 1), readyNode("t", "a-thief", 2))
			w.settle("victim")
			w.settle("a-thief")
			w.say("victim", testKey, otherTestKey)
			w.say("a-thief", stolen.key, stolen.next)
			if key, next := w.copied("a-thief"); key != "" || next != "" {
				t.Errorf("%+v: status confirms %q, %q", stolen, key, next)
			}
			c := meta.FindStatusCondition(w.get("a-thief").Status.Conditions, gateway.ConditionReady)
			if c == nil || !strings.Contains(c.Message, "gateway victim, node v has it too") {
				t.Errorf("%+v: condition %+v", stolen, c)
			}
			if res := w.once("a-thief"); res.RequeueAfter != unconfirmedEvery {
				t.Errorf("it is looked at again after %v", res.RequeueAfter)
			}
			// The one who had it keeps it, through a change of key too.
			w.say("victim", otherTestKey, "")
			if key, _ := w.copied("victim"); key != otherTestKey {
				t.Errorf("%+v: the victim has %q", stolen, key)
			}
		})
	}
}

// TestKeyOfAMovedNode: an entry that is left of a node in its old Gateway takes
// nothing from it.
func TestKeyOfAMovedNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := ourGateway("old", "pool/o")
		old.Spec.Endpoints = []v1beta1.Endpoint{{NodeName: "n", Type: v1beta1.TypeTunnel, Config: map[string]string{v1beta1.ConfigPublicKey: testKey}}}
		w := newWorld(t, old, ourGateway("new", "pool/n"), readyNode("n", "new", 1))
		w.settle("new")
		w.say("new", testKey, "")
		if key, _ := w.copied("new"); key != testKey {
			t.Errorf("status has %q", key)
		}
	})
}
