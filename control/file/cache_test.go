package file

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"corax/control"
)

// life is one start of an agent: it reads the directory once.
func life(t *testing.T, dir, cacheDir string) control.Snapshot {
	t.Helper()
	var last control.Snapshot
	s, err := New(Config{Dir: dir, Cache: cacheDir, Update: func(s control.Snapshot) { last = s }})
	if err != nil {
		t.Fatal(err)
	}
	s.scan()
	return last
}

func show(s control.Snapshot) string {
	var out []string
	for _, g := range s.Gateways {
		out = append(out, g.Metadata.Name+"="+g.Metadata.Annotations["v"])
	}
	for _, p := range s.Problems {
		out = append(out, p.String())
	}
	return strings.Join(out, "; ")
}

func doc(name, v string) string {
	return "apiVersion: raven.openyurt.io/v1beta1\nkind: Gateway\nmetadata: {name: " + name + ", annotations: {v: \"" + v + "\"}}\n"
}

// TestRestartWithBrokenFile: what was in force stays so over a restart, as long
// as its file is there and does not say otherwise.
func TestRestartWithBrokenFile(t *testing.T) {
	const broken = "f.yaml:1: not YAML"
	type start struct {
		f    string // contents of f.yaml; empty: removed
		want string
	}
	for _, tt := range []struct {
		name   string
		starts []start
	}{
		{"broken", []start{{doc("a", "1"), "a=1; g=1"}, {"{", "a=1; g=1; " + broken}, {"{{", "a=1; g=1; " + broken}, {doc("a", "2"), "a=2; g=1"}}},
		{"broken in part", []start{
			{doc("a", "1") + "---\n" + doc("b", "1"), "a=1; b=1; g=1"},
			{doc("a", "2") + "---\n" + doc("b", "2") + "x: 1\n", "a=2; b=1; g=1; f.yaml:8: x: unknown field"},
			{"{", "a=2; b=1; g=1; " + broken},
		}},
		{"emptied", []start{{doc("a", "1"), "a=1; g=1"}, {"#", "a=1; g=1; f.yaml:1: no Gateway in it; remove the file to remove its Gateways"}}},
		{"removed", []start{{doc("a", "1"), "a=1; g=1"}, {"", "g=1"}, {"{", "g=1; " + broken}}},
		{"removed while it was broken", []start{{doc("a", "1"), "a=1; g=1"}, {"{", "a=1; g=1; " + broken}, {"", "g=1"}, {"{", "g=1; " + broken}}},
		{"never good", []start{{"{", "g=1; " + broken}, {"{", "g=1; " + broken}}},
		{"a bad value", []start{
			{doc("a", "1") + "spec: {exposeType: Moon}\n", `a=1; g=1; f.yaml:4: gateway/a: spec.exposeType: "Moon" is none of ["" "PublicIP" "LoadBalancer"]`},
			{"{", "a=1; g=1; " + broken + `; f.yaml:4: gateway/a: spec.exposeType: "Moon" is none of ["" "PublicIP" "LoadBalancer"]`},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, state := t.TempDir(), t.TempDir()
			write(t, filepath.Join(dir, "g.yaml"), doc("g", "1"))
			path := filepath.Join(dir, "f.yaml")
			for i, s := range tt.starts {
				if s.f == "" {
					if err := os.Remove(path); err != nil {
						t.Fatal(err)
					}
				} else {
					write(t, path, s.f)
				}
				got := show(life(t, dir, state))
				for _, part := range strings.Split(s.want, "; ") {
					if !strings.Contains(got, part) {
						t.Errorf("start %d: %s\nwant %s", i, got, s.want)
					}
				}
				if strings.Count(s.want, "=") != strings.Count(got, "=") {
					t.Errorf("start %d: %s\nwant %s", i, got, s.want)
				}
			}
			st, err := os.Stat(filepath.Join(state, CacheFile))
			if err != nil || st.Mode() != 0o600 {
				t.Errorf("cache: %v, %v", st, err)
			}
			if left, err := os.ReadDir(state); err != nil || len(left) != 1 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCacheRoundTrip: every field comes back as it was.
func TestCacheRoundTrip(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "f.yaml")
	write(t, path, doc("a", "<é>")+`spec:
  nodeSelector: {matchLabels: {a: b}, matchExpressions: [{key: k, operator: In, values: [x]}]}
  proxyConfig: {Replicas: 2, proxyHTTPPort: "10255", proxyHTTPSPort: "10250,9100"}
  tunnelConfig: {Replicas: 1}
  exposeType: PublicIP
  endpoints:
  - {nodeName: n1, type: tunnel, port: 4500, underNAT: true, natType: Symmetric NAT, publicIP: 203.0.113.1, publicPort: 4501, config: {publicKey: "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk="}}
status:
  nodes: [{nodeName: n1, privateIP: 192.0.2.1, subnets: [10.0.0.0/24, "fd00::/64"]}]
  activeEndpoints: [{nodeName: n1, type: tunnel}]
`)
	want := life(t, dir, state)
	write(t, path, "{")
	got := life(t, dir, state)
	if diff := cmp.Diff(want.Gateways, got.Gateways); diff != "" || len(got.Gateways) != 1 {
		t.Error(diff)
	}
}

// TestCacheDamaged: whatever is there in place of the cache costs what it held,
// and no start.
func TestCacheDamaged(t *testing.T) {
	for name, spoil := range map[string]func(path, dir string) error{
		"binary": func(p, _ string) error { return os.WriteFile(p, []byte{0, 1, 2, 255}, 0o600) },
		"cut":    func(p, _ string) error { return os.Truncate(p, 20) },
		"empty":  func(p, _ string) error { return os.Truncate(p, 0) },
		"huge":   func(p, _ string) error { return os.Truncate(p, maxCache+1) },
		"a pipe": func(p, _ string) error { _ = os.Remove(p); return unix.Mkfifo(p, 0o600) },
		"a link": func(p, _ string) error { _ = os.Remove(p); return os.Symlink("/dev/zero", p) },
		"no names": func(p, dir string) error {
			return os.WriteFile(p, []byte(`{"dir":"`+dir+`","files":[{"name":"f.yaml","objects":[{}]}]}`), 0o600)
		},
		"elsewhere": func(p, _ string) error {
			return os.WriteFile(p, []byte(`{"dir":"/x","files":[{"name":"f.yaml","objects":[{"gateway":{"metadata":{"name":"a"}}}]}]}`), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, state := t.TempDir(), t.TempDir()
			path := filepath.Join(dir, "f.yaml")
			write(t, path, doc("a", "1"))
			life(t, dir, state)
			if err := spoil(filepath.Join(state, CacheFile), dir); err != nil {
				t.Fatal(err)
			}
			write(t, path, "{")
			if got := show(life(t, dir, state)); !strings.HasPrefix(got, "f.yaml:1: not YAML") {
				t.Errorf("a broken file and a broken cache: %s", got)
			}
			write(t, path, doc("a", "2"))
			if got := show(life(t, dir, state)); got != "a=2" {
				t.Errorf("mended: %s", got)
			}
			write(t, path, "{")
			if got := show(life(t, dir, state)); !strings.HasPrefix(got, "a=2; ") {
				t.Errorf("the cache is not mended: %s", got)
			}
		})
	}
}

// TestCacheAway: a directory that is away at the start has its last state.
func TestCacheAway(t *testing.T) {
	dir, state := filepath.Join(t.TempDir(), "gateways"), t.TempDir()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "f.yaml"), doc("a", "1"))
	life(t, dir, state)
	var last control.Snapshot
	s, err := New(Config{Dir: dir, Cache: state, Update: func(s control.Snapshot) { last = s }})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	s.scan()
	if got := show(last); !strings.HasPrefix(got, "a=1; ") || !strings.Contains(got, "its last state stays") {
		t.Errorf("away: %s", got)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s.scan()
	if got := show(last); got != "" {
		t.Errorf("back and empty: %s", got)
	}
}

// TestCacheNotWritten: a cache that cannot be written is a problem until it can.
func TestCacheNotWritten(t *testing.T) {
	dir, state := t.TempDir(), filepath.Join(t.TempDir(), "state")
	write(t, filepath.Join(dir, "f.yaml"), doc("a", "1"))
	var last control.Snapshot
	s, err := New(Config{Dir: dir, Cache: state, Update: func(s control.Snapshot) { last = s }})
	if err != nil {
		t.Fatal(err)
	}
	s.scan()
	if got := show(last); !strings.HasPrefix(got, "a=1; file/gateways.json: cannot be written to "+state) || !strings.HasSuffix(got, "no such file or directory") {
		t.Errorf("without a directory: %s", got)
	}
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	s.scan()
	if got := show(last); got != "a=1" {
		t.Errorf("with a directory: %s", got)
	}
}

// TestCacheSweep: temporary files of killed writers go, those of living ones
// stay, and so does what is not ours.
func TestCacheSweep(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	for _, name := range []string{CacheFile + ".123", CacheFile + ".new", "memory.json.1", "other"} {
		path := filepath.Join(state, name)
		write(t, path, "x")
		if name != CacheFile+".new" {
			old := time.Now().Add(-time.Hour)
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	life(t, dir, state)
	var left []string
	if err := fs.WalkDir(os.DirFS(state), ".", func(path string, d fs.DirEntry, err error) error {
		if !d.IsDir() {
			left = append(left, path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{CacheFile, CacheFile + ".new", "memory.json.1", "other"}, left); diff != "" {
		t.Error(diff)
	}
}

func FuzzCache(f *testing.F) {
	f.Add([]byte(`{"dir":"d","files":[{"name":"f.yaml","objects":[{"source":"f.yaml:1","gateway":{"metadata":{"name":"a"}},"problems":[{"Object":"x"}]}]}]}`))
	f.Add([]byte(`{"files":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		state := t.TempDir()
		write(t, filepath.Join(state, CacheFile), string(b))
		c := cache{dir: state}
		files, err := c.load("d")
		if err != nil {
			return
		}
		again, err := encode("d", files)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.save("d", files); err != nil {
			t.Fatal(err)
		}
		back, err := (&cache{dir: state}).load("d")
		if err != nil {
			t.Fatal(err)
		}
		if second, err := encode("d", back); err != nil || string(second) != string(again) {
			t.Errorf("%s\nbecame %s, %v", again, second, err)
		}
	})
}
