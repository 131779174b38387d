//go:build linux

package tunnel_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"corax/integration/lab"
)

// TestHostileFiles puts garbage beside and in place of the Gateway files: each
// agent names what is wrong, with file, line and field, keeps what was good, and
// forgets the problem when it is mended.
func TestHostileFiles(t *testing.T) {
	f := newFaults(t, lab.Options{})
	good := make(map[string][]byte)
	for _, name := range []string{"cloud.yaml", "edge-a.yaml"} {
		b, err := os.ReadFile(filepath.Join(f.Gateways, name))
		if err != nil {
			t.Fatal(err)
		}
		good[name] = b
	}
	binary := make([]byte, 64<<10)
	rand.NewChaCha8([32]byte{5}).Read(binary)
	bad := func(old, replacement string) []byte {
		if !bytes.Contains(good["edge-a.yaml"], []byte(old)) {
			t.Fatalf("no %q in edge-a.yaml", old)
		}
		return bytes.Replace(good["edge-a.yaml"], []byte(old), []byte(replacement), 1)
	}
	const head = "apiVersion: raven.openyurt.io/v1beta1\nkind: Gateway\n"
	var before []string
	for _, a := range f.Agents() {
		before = append(before, inForce(f.status(a)))
	}
	const greedy = `metadata: {name: zz}
spec:
  tunnelConfig: {Replicas: 1}
  endpoints:
  - {nodeName: zz-1, type: tunnel, config: {publicKey: "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk="}}
status:
  nodes:
  - {nodeName: zz-1, privateIP: 192.0.2.1, subnets: [10.244.0.0/16]}
`
	for _, tt := range []struct {
		name, file string
		contents   []byte
		problems   []string
		changes    bool // what is in force; else it stays as it was
	}{
		{"binary", "x.yaml", binary, []string{"x.yaml:1: not YAML"}, false},
		{"empty", "x.yaml", nil, []string{"x.yaml:1: no Gateway in it"}, false},
		{"huge", "x.yaml", bytes.Repeat([]byte("#"), 5<<20), []string{"x.yaml:1: larger than 4194304 bytes"}, false},
		{"another kind", "x.yaml", []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n"), []string{`x.yaml:1: kind: "Pod" is not Gateway`}, false},
		{"an older version", "x.yaml", []byte("apiVersion: raven.openyurt.io/v1alpha1\nkind: Gateway\nmetadata: {name: g}\n"), []string{`"raven.openyurt.io/v1alpha1" is not raven.openyurt.io/v1beta1`}, false},
		{"aliases that multiply", "x.yaml", []byte(head + "metadata: {name: g}\nspec: &a {nodeSelector: {}}\nstatus: *a\n"), []string{"aliases are not accepted"}, false},
		{"deep", "x.yaml", []byte(head + "metadata: {name: g}\nspec: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "\n"), []string{"x.yaml:"}, false},
		{"the same Gateway twice", "x.yaml", good["cloud.yaml"], []string{"gateway cloud is already defined in cloud.yaml:1"}, false},
		{"somebody else's subnet", "zz.yaml", []byte(head + greedy), []string{"10.244.0.0/16 of node zz-1 overlaps 10.244.0.0/24 of gateway cloud"}, true},

		{"half a file", "cloud.yaml", good["cloud.yaml"][:bytes.Index(good["cloud.yaml"], []byte("subnets:"))+4], []string{"cloud.yaml:"}, false},
		{"binary in place of a file", "edge-a.yaml", binary, []string{"edge-a.yaml:1: not YAML"}, false},
		{"nothing in place of a file", "edge-a.yaml", nil, []string{"edge-a.yaml:1: no Gateway in it"}, false},
		{"an unknown field", "edge-a.yaml", bad("Replicas:", "replicas:"), []string{"spec.tunnelConfig.replicas: unknown field"}, false},
		{"a subnet that is none", "edge-a.yaml", bad("10.244.10.0/24", "10.244.10.0/42"), []string{"edge-a.yaml:", `status.nodes[0].subnets[0]`, "10.244.10.0/42"}, true},
		{"a port that is none", "edge-a.yaml", bad("port: 4500", "port: 70000"), []string{"spec.endpoints[0].port", "70000"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			put(t, f.Gateways, tt.file, tt.contents)
			for i, a := range f.Agents() {
				f.await(t, a, 10*time.Second, lab.Troubled(tt.problems...))
				if now := inForce(f.status(a)); now != before[i] && !tt.changes {
					t.Errorf("%s: in force is %s, before %s", a.Host.Name, now, before[i])
				}
			}
			if b, ok := good[tt.file]; ok {
				put(t, f.Gateways, tt.file, b)
			} else if err := os.Remove(filepath.Join(f.Gateways, tt.file)); err != nil {
				t.Fatal(err)
			}
			for _, a := range f.Agents() {
				f.await(t, a, 10*time.Second, lab.Untroubled)
			}
		})
	}
	f.undisturbed()
}

// inForce says what an agent makes of the Gateway objects.
func inForce(s *lab.Status) string {
	text := s.Role + " of " + s.Gateway
	for _, p := range s.Peers {
		text += fmt.Sprintf(", %s/%s %v", p.Gateway, p.Node, p.Subnets)
	}
	return text
}

// put writes a file slowly, without the rename that a careful writer makes.
func put(t *testing.T, dir, name string, contents []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), contents, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestHostileFileKinds puts what is no file where a Gateway file should be. A
// pipe must not make an agent wait for its writer.
func TestHostileFileKinds(t *testing.T) {
	f := newFaults(t, lab.Options{Nodes: 2})
	x := filepath.Join(f.Gateways, "x.yaml")
	for _, tt := range []struct {
		name    string
		make    func() error
		problem string
	}{
		{"a pipe", func() error { return unix.Mkfifo(x, 0o644) }, "x.yaml: cannot be read: not a regular file"},
		{"a link to a device", func() error { return os.Symlink("/dev/zero", x) }, "x.yaml: cannot be read: not a regular file"},
		{"a link to nothing", func() error { return os.Symlink("/nonexistent", x) }, "x.yaml: cannot be read: no such file"},
		{"a link to itself", func() error { return os.Symlink(x, x) }, "x.yaml: cannot be read: too many levels"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.make(); err != nil {
				t.Fatal(err)
			}
			for _, a := range f.Agents() {
				f.await(t, a, 10*time.Second, lab.Troubled(tt.problem))
			}
			if err := os.Remove(x); err != nil {
				t.Fatal(err)
			}
			for _, a := range f.Agents() {
				f.await(t, a, 10*time.Second, lab.Untroubled)
			}
		})
	}
	f.undisturbed()
}

// TestGatewaysGone takes the directory away, with the files: the last state
// stays in force, over changes elsewhere too, until it is back.
func TestGatewaysGone(t *testing.T) {
	f := newFaults(t, lab.Options{})
	away := f.Gateways + ".away"
	if err := os.Rename(f.Gateways, away); err != nil {
		t.Fatal(err)
	}
	for _, a := range f.Agents() {
		f.await(t, a, 20*time.Second, lab.Troubled("the directory cannot be read, its last state stays: no such file or directory"))
	}
	if n := len(f.status(f.hub()).Peers); n != 1 {
		t.Errorf("the hub has %d peers", n)
	}
	f.undisturbed()
	if err := os.Rename(away, f.Gateways); err != nil {
		t.Fatal(err)
	}
	for _, a := range f.Agents() {
		f.await(t, a, 30*time.Second, lab.Untroubled)
	}
	f.undisturbed()
}
