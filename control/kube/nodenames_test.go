package kube

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestIndexNodes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		hosts map[string]string
		want  map[string]string
	}{
		{"none", nil, map[string]string{}},
		{"name alone", map[string]string{"edge-1": ""}, map[string]string{"edge-1": "edge-1"}},
		{"a Hostname of its own", map[string]string{"edge-1": "Box.Example."}, map[string]string{"edge-1": "edge-1", "box.example": "edge-1"}},
		{"the same name", map[string]string{"edge-1": "EDGE-1"}, map[string]string{"edge-1": "edge-1"}},
		{"another node's name", map[string]string{"a": "b", "b": ""}, map[string]string{"a": "a", "b": "b"}},
		{"two with one", map[string]string{"b": "x", "a": "x"}, map[string]string{"a": "a", "b": "b"}},
		{"an address", map[string]string{"a": "10.0.0.1"}, map[string]string{"a": "a"}},
		{"no name at all", map[string]string{"a": "x y"}, map[string]string{"a": "a"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, indexNodes(tt.hosts)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNodeObject(t *testing.T) {
	for _, tt := range []struct {
		doc, name, host string
		controlPlane    bool
	}{
		{`{"metadata":{"name":"a"},"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.1"},{"type":"Hostname","address":"h"},{"type":"Hostname","address":"i"}]}}`, "a", "h", false},
		{`{"metadata":{"name":"a","labels":{"node-role.kubernetes.io/control-plane":""}}}`, "a", "", true},
		{`{"metadata":{"name":"a","labels":{"node-role.kubernetes.io/master":""}}}`, "a", "", true},
		{`{"metadata":{"name":"a","labels":7},"status":{"addresses":[{"type":"Hostname","address":"h"}]}}`, "a", "h", false},
		{`{"metadata":{"name":"a"},"status":"down"}`, "a", "", false},
	} {
		var n nodeObject
		if err := json.Unmarshal([]byte(tt.doc), &n); err != nil || n.Name != tt.name || n.hostname != tt.host || n.controlPlane != tt.controlPlane {
			t.Errorf("%s: %v, %+v", tt.doc, err, n)
		}
	}
}

func FuzzNodeObject(f *testing.F) {
	f.Add([]byte(`{"metadata":{"name":"a"},"status":{"addresses":[{"type":"Hostname","address":"h"}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var n nodeObject
		if err := n.UnmarshalJSON(b); err != nil {
			t.Error(err)
		}
	})
}

func nodeDoc(host string) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"Node","metadata":{},"status":{"addresses":[{"type":"Hostname","address":%q}],"images":[{"names":["x"]}]}}`, host)
}

// TestNodesOfAFront reads the nodes while this one is a front, page by page, follows
// their changes, and lets go of them afterwards.
func TestNodesOfAFront(t *testing.T) {
	f := newFakeAPI(t)
	f.put(settingsPath, "raven-cfg", configMap())
	const many = 2*nodePage + 7
	for i := range many {
		f.put(nodesPath, fmt.Sprintf("n%04d", i), nodeDoc(fmt.Sprintf("h%04d", i)))
	}
	r := run(t, f, nil)
	if _, known, listed := r.Node("n0001"); known || listed {
		t.Error("nodes are read by one that is no front")
	}
	r.Front(true)
	eventually(t, "the last node", func() bool {
		node, _, _ := r.Node(fmt.Sprintf("H%04d", many-1))
		return node == fmt.Sprintf("n%04d", many-1)
	})
	if _, known, listed := r.Node("nobody"); known || !listed {
		t.Errorf("an unknown name: known %v, listed %v", known, listed)
	}
	lists := 0
	for _, line := range f.did("GET " + nodesPath) {
		if !strings.Contains(line, "watch") {
			lists++
		}
	}
	if lists != 3 {
		t.Errorf("%d requests for the list", lists)
	}
	f.put(nodesPath, "n0001", nodeDoc("other"))
	eventually(t, "a new Hostname", func() bool { node, _, _ := r.Node("other"); return node == "n0001" })
	if _, known, _ := r.Node("h0001"); known || r.Hostname("n0001") != "other" {
		t.Error("the old Hostname is still known")
	}
	f.put(nodesPath, "n0001", "")
	eventually(t, "a node is gone", func() bool { _, known, _ := r.Node("n0001"); return !known })
	r.Front(false)
	eventually(t, "all are forgotten", func() bool { _, known, listed := r.Node("n0002"); return !known && !listed })
}

// TestNodesForbidden: a front without the right says so, and knows names alone.
func TestNodesForbidden(t *testing.T) {
	f := newFakeAPI(t)
	f.put(settingsPath, "raven-cfg", configMap())
	f.setRefuse(nodesPath, 403)
	r := run(t, f, nil)
	r.Front(true)
	eventually(t, "it says so", func() bool {
		return strings.Contains(strings.Join(r.State().Problems(), "\n"), "nodes by their own names alone")
	})
	r.Front(false)
	eventually(t, "it says nothing of it any more", func() bool { return r.State().NodesErr == "" })
}
