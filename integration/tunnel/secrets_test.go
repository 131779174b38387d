//go:build linux

package tunnel_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"corax/integration/lab"
)

const (
	pskSecret = "correct horse battery staple 7391"
	pskOther  = "an other secret, of somebody else"
)

// secrets are things that no log may hold, in every form, by name.
type secrets map[string][]byte

// add adds a secret and the ways to print it.
func (s secrets) add(name string, b []byte) {
	var numbers, bytes []string
	for _, x := range b {
		numbers = append(numbers, fmt.Sprint(x))
		bytes = append(bytes, fmt.Sprintf("%#x", x))
	}
	s[name] = b
	s[name+", base64"] = []byte(base64.RawStdEncoding.EncodeToString(b))
	s[name+", URL base64"] = []byte(base64.RawURLEncoding.EncodeToString(b))
	s[name+", hexadecimal"] = []byte(hex.EncodeToString(b))
	s[name+", upper case"] = []byte(strings.ToUpper(hex.EncodeToString(b)))
	s[name+", numbers"] = []byte(strings.Join(numbers, " "))
	s[name+", Go syntax"] = []byte(strings.Join(bytes, ", "))
}

// addKeyOf adds the private key of an agent, as it is in its file and as it is
// used.
func (s secrets) addKeyOf(t *testing.T, a *lab.Agent) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(a.StateDir(), "private.key"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(b) != 32 {
		t.Fatalf("the key file of %s holds %d bytes, %v", a.Host.Name, len(b), err)
	}
	s.add("key file of "+a.Host.Name, bytes.Clone(b))
	b[0] &= 248 // RFC 7748, section 5
	b[31] = b[31]&127 | 64
	s.add("private key of "+a.Host.Name, b)
}

// in returns the name of a secret that a text holds.
func (s secrets) in(text []byte) (name string, found bool) {
	for name, form := range s {
		if bytes.Contains(text, form) {
			return name, true
		}
	}
	return "", false
}

// TestSecretsStaySecret drives agents through all that makes them log, at level
// debug, and looks for their keys in what they wrote.
func TestSecretsStaySecret(t *testing.T) {
	topo := lab.Standard(lab.ForTest(t), lab.Options{Edges: 1, NoCapture: true})
	serveStreams(t, topo)
	file := func(name, secret string) string {
		path := filepath.Join(topo.Lab.Dir(), name)
		if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	psk, other := file("psk", pskSecret), file("psk2", pskOther)
	for _, path := range []string{psk, other} { // root may read them, too
		if err := os.Chown(path, lab.DeprivedUser(), lab.DeprivedUser()); err != nil {
			t.Fatal(err)
		}
	}
	startAgents(t, topo, "--log-level", "debug", "--psk-file", psk)

	hidden := secrets{"PSK secret": []byte(pskSecret), "other PSK secret": []byte(pskOther)}
	for _, s := range []string{pskSecret, pskOther} {
		sum := sha256.Sum256([]byte(s))
		hidden.add("key of "+s, sum[:])
	}
	for _, a := range topo.Agents() {
		hidden.addKeyOf(t, a)
	}
	pod, far := topo.Node("edge-a-1").Pods[0], topo.Node("cloud-1").Pods[0]
	reaches(t, pod.Host, far.IP, streamPort)

	shown := secretLives(t, topo, psk, other)
	reaches(t, pod.Host, far.IP6, streamPort)
	for _, a := range topo.Agents() {
		hidden.addKeyOf(t, a) // also those that are new
		log, err := os.ReadFile(a.LogFile())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(log, []byte("DEBUG")) {
			t.Errorf("the log of %s says too little to prove anything", a.Host.Name)
		}
		shown["log of "+a.Host.Name] = log
	}
	for _, node := range []string{"cloud-gw", "edge-a-gw"} { // the others have no peers to remember
		shown["memory of "+node] = whenWritten(t, filepath.Join(topo.Agent(node).StateDir(), "memory.json"))
	}
	for place, text := range shown {
		if name, found := hidden.in(text); found {
			t.Errorf("%s holds: %s", place, name)
		}
	}
	// The search itself finds what is there.
	for name, form := range hidden {
		if _, found := hidden.in(fmt.Appendf(nil, "key=%s.", form)); !found {
			t.Errorf("%s would not be found", name)
		}
	}
}

// secretLives makes agents fail, restart and change keys, and returns what they
// print when asked.
func secretLives(t *testing.T, topo *lab.Topology, psk, other string) map[string][]byte {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	shown := map[string][]byte{}
	edge, hub, node := topo.Agent("edge-a-gw"), topo.Agent("cloud-gw"), topo.Agent("edge-a-1")

	// Handshakes that fail: the other side has another pre-shared key.
	must(edge.Stop())
	edge.SetArgs("--log-level", "debug", "--log-format", "json", "--psk-file", other)
	must(edge.Start())
	must(edge.WaitReady(ctx))
	must(edge.WaitStatus(ctx, func(s *lab.Status) error {
		if s.Counters["wg_drop_total{response}"] == 0 {
			return fmt.Errorf("no handshake failed: %v", s.Counters)
		}
		return nil
	}))
	must(edge.Kill())
	edge.SetArgs("--log-level", "debug", "--log-format", "json", "--psk-file", psk)
	must(edge.Start())
	must(edge.WaitReady(ctx))

	// A key file that does not parse, with the key still in it.
	must(node.Stop())
	path := filepath.Join(node.StateDir(), "private.key")
	good, err := os.ReadFile(path)
	must(err)
	for i, bad := range [][]byte{fmt.Appendf(nil, "%s=A", bytes.TrimSpace(good)), good[:30], fmt.Appendf(nil, "key: %s", good)} {
		must(os.WriteFile(path, bad, 0o600))
		must(node.Start())
		select {
		case <-node.Process().Done():
		case <-ctx.Done():
			t.Fatal("an agent runs without a usable key")
		}
		_, err := node.Key(ctx)
		if err == nil {
			t.Error("corax key takes a bad key file")
		}
		shown[fmt.Sprintf("error of corax key, %d", i)] = fmt.Append(nil, err)
	}
	must(os.WriteFile(path, good, 0o600))
	must(node.Start())
	must(node.WaitReady(ctx))

	for _, a := range []*lab.Agent{edge, hub, node} {
		must(a.WaitStatus(ctx, func(s *lab.Status) error { return lab.Reached(s.Peers[0].Node)(s) }))
		for _, args := range [][]string{
			{"status"}, {"status", "-o", "wide"}, {"status", "-o", "json"}, {"status", "-o", "yaml"}, {"ping", "-c", "1", "cloud-gw"},
		} {
			out, err := a.Command(ctx, args...)
			what := strings.Join(args, " ") + " on " + a.Host.Name
			shown[what] = fmt.Append(out, err)
		}
	}
	for _, a := range topo.Agents() {
		_, metrics := fetch(t, topo.Node(a.Host.Name), 10283, "/metrics")
		shown["metrics of "+a.Host.Name] = []byte(metrics)
	}
	return shown
}

// whenWritten reads a file that an agent will write soon.
func whenWritten(t *testing.T, path string) []byte {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
		b, err := os.ReadFile(path)
		if err == nil {
			return b
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
