//go:build linux

package proxy_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testKubectl uses each verb that goes to kubelets, with the node's own answer
// showing that it was the right one.
func (w *world) testKubectl(t *testing.T) {
	for _, node := range kubeletNodes() {
		t.Run("logs "+node, func(t *testing.T) { w.logs(t, node) })
		t.Run("exec "+node, func(t *testing.T) { w.exec(t, node) })
		t.Run("terminal "+node, func(t *testing.T) { w.terminal(t, node) })
		t.Run("attach "+node, func(t *testing.T) { w.attach(t, node) })
		t.Run("port-forward "+node, func(t *testing.T) { w.forward(t, node) })
		t.Run("raw "+node, func(t *testing.T) { w.rawOf(t, node) })
	}
	for _, node := range []string{"edge-a-1", "edge-b-1"} {
		t.Run("cp "+node, func(t *testing.T) { w.cp(t, node, 200<<20) })
	}
}

func (w *world) logs(t *testing.T, node string) {
	if got := w.kubectl(t, "logs", pod(node), "-c", "main", "--limit-bytes=40"); !strings.HasPrefix(got, node+" 0\n") {
		t.Errorf("the log begins with %q", got)
	}
	r := w.start(t, "logs", "-f", "--tail=1", pod(node), "-c", "main")
	for range 10 {
		if s := r.line(t, 10*time.Second); !strings.HasPrefix(s, node+" ") {
			t.Fatalf("a line of the log is %q", s)
		}
	}
}

func (w *world) exec(t *testing.T, node string) {
	if got := w.kubectl(t, "exec", pod(node), "-c", "main", "--", "hostname"); got != node {
		t.Errorf("the host name is %q", got)
	}
	data := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	sum := sha256.Sum256(data)
	out, err := w.Cluster.Kubectl(t, data, "exec", "-i", pod(node), "-c", "main", "--", "sh", "-c", "sha256sum; exit 42")
	if exitCode(err) != 42 {
		t.Errorf("exit status 42 came as %v", err)
	}
	if !strings.HasPrefix(string(out), hex.EncodeToString(sum[:])) {
		t.Errorf("a mebibyte of input has the sum %s", out)
	}
}

func (w *world) attach(t *testing.T, node string) {
	r := w.start(t, "attach", "-i", "-q", pod(node), "-c", "echo")
	// Attaching takes a moment that kubectl -q does not tell; what is said before
	// is delivered all the same.
	for _, word := range []string{"hello", "again"} {
		r.say(t, node+" "+word)
		if got := r.line(t, 10*time.Second); got != node+" "+word {
			t.Errorf("the answer is %q", got)
		}
	}
}

func (w *world) forward(t *testing.T, node string) {
	const far = 9200
	server, err := w.Node(node).Serve(far, netip.MustParseAddr("127.0.0.1"))
	must(t, err)
	defer func() { _ = server.Close() }()
	r := w.start(t, "port-forward", pod(node), fmt.Sprintf("18080:%d", far))
	if s := r.line(t, 10*time.Second); !strings.Contains(s, "127.0.0.1:18080") {
		t.Fatalf("it said %q", s)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := w.Control.Transfer(ctx, netip.MustParseAddrPort("127.0.0.1:18080"), 4<<20); err != nil {
		t.Error(err)
	}
	must(t, r.Kill())
}

// rawOf asks through the API server's nodes/proxy.
func (w *world) rawOf(t *testing.T, node string) {
	var summary struct {
		Node struct{ NodeName string }
	}
	deadline := time.Now().Add(time.Minute) // a kubelet has statistics some ten seconds after its start
	for {
		b, err := w.raw(t.Context(), "/api/v1/nodes/"+node+"/proxy/stats/summary")
		if err == nil {
			must(t, json.Unmarshal([]byte(b), &summary))
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if summary.Node.NodeName != node {
		t.Errorf("the summary is that of %q", summary.Node.NodeName)
	}
	for path, want := range map[string]string{
		"metrics":          fmt.Sprintf(`kubelet_node_name{node=%q} 1`, node),
		"metrics/resource": fmt.Sprintf(`container_memory_working_set_bytes{container="main",namespace="default",pod=%q}`, pod(node)),
	} {
		b, err := w.raw(t.Context(), "/api/v1/nodes/"+node+"/proxy/"+path)
		if err != nil || !strings.Contains(b, want) {
			t.Errorf("%s, %v: %d bytes without %s", path, err, len(b), want)
		}
	}
}

// cp copies a file to a container and back.
func (w *world) cp(t *testing.T, node string, size int64) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	sum := randomFile(t, from, size)
	at := pod(node) + ":/tmp/copy"
	start := time.Now()
	w.kubectl(t, "cp", "--retries=0", "-c", "main", from, at)
	up := time.Since(start)
	if got := w.kubectl(t, "exec", pod(node), "-c", "main", "--", "sha256sum", "/tmp/copy"); !strings.HasPrefix(got, sum) {
		t.Errorf("the sum there is %s, not %s", got, sum)
	}
	start = time.Now()
	w.kubectl(t, "cp", "--retries=0", "-c", "main", at, to)
	down := time.Since(start)
	if got := fileSum(t, to); got != sum {
		t.Errorf("what came back has the sum %s, not %s", got, sum)
	}
	t.Logf("%d MB: %v there, %v back", size>>20, up.Round(time.Millisecond), down.Round(time.Millisecond))
	w.kubectl(t, "exec", pod(node), "-c", "main", "--", "rm", "/tmp/copy")
}

// randomFile writes a file and returns its SHA-256 in hex.
func randomFile(t *testing.T, path string, size int64) string {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer func() { _ = f.Close() }()
	source := rand.NewChaCha8([32]byte{byte(size)})
	hash := sha256.New()
	block := make([]byte, 1<<20)
	for size > 0 {
		n := min(size, int64(len(block)))
		_, _ = source.Read(block[:n])
		_, _ = hash.Write(block[:n])
		_, err := f.Write(block[:n])
		must(t, err)
		size -= n
	}
	return hex.EncodeToString(hash.Sum(nil))
}

func fileSum(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
