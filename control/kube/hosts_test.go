package kube

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHostsText(t *testing.T) {
	const local = "127.0.0.1\tlocalhost\n::1\tlocalhost\n"
	for _, tt := range []struct{ name, own, lines, want string }{
		{"nothing", "", "", local + hostsMark + "\n"},
		{"names alone", "", "10.96.0.7\tedge-1\n", local + hostsMark + "\n10.96.0.7\tedge-1\n"},
		{"beside the host's", "127.0.0.1 localhost\n10.0.0.1 me\n\n", "10.96.0.7\tedge-1", "127.0.0.1 localhost\n10.0.0.1 me\n" + hostsMark + "\n10.96.0.7\tedge-1\n"},
		{"our own file as the host's", "127.0.0.1 x\n" + hostsMark + "\n10.96.0.7\told\n", "", "127.0.0.1 x\n" + hostsMark + "\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(hostsText([]byte(tt.own), tt.lines)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestHostsFile follows the ConfigMap on a node of the control plane. The file stays
// the same one, since a container has it mounted.
func TestHostsFile(t *testing.T) {
	f := newFakeAPI(t)
	f.put(settingsPath, "raven-cfg", configMap())
	f.put(settingsPath, hostsName, configMap(hostsKey, "10.96.0.7\tedge-1\n10.96.0.7\tedge-2\n"))
	f.put(nodesPath, "me", `{"apiVersion":"v1","kind":"Node","metadata":{"labels":{"node-role.kubernetes.io/control-plane":""}}}`)
	path := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(path, []byte(strings.Repeat("a longer file than before\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	holds := func(part string) func() bool {
		return func() bool {
			b, err := os.ReadFile(path)
			return err == nil && strings.HasSuffix(string(b), part)
		}
	}
	r := run(t, f, func(c *Config) { c.HostsFile = path })
	eventually(t, "the names", holds(hostsMark+"\n10.96.0.7\tedge-1\n10.96.0.7\tedge-2\n"))
	after, err := os.Stat(path)
	if err != nil || !os.SameFile(before, after) || after.Mode().Perm() != 0o644 {
		t.Errorf("another file, or mode: %v, %v", after, err)
	}
	f.put(settingsPath, hostsName, configMap(hostsKey, "192.168.0.1\tedge-1\n"))
	eventually(t, "a change", holds(hostsMark+"\n192.168.0.1\tedge-1\n"))
	f.put(settingsPath, hostsName, "")
	eventually(t, "the ConfigMap is gone", holds(hostsMark+"\n"))
	if p := r.State().HostsErr; p != "" {
		t.Error(p)
	}
}

// TestHostsElsewhere: a node that is not of the control plane writes nothing.
func TestHostsElsewhere(t *testing.T) {
	f := newFakeAPI(t)
	f.put(settingsPath, "raven-cfg", configMap())
	f.put(settingsPath, hostsName, configMap(hostsKey, "10.96.0.7\tedge-1\n"))
	f.put(nodesPath, "me", nodeDoc(""))
	path := filepath.Join(t.TempDir(), "hosts")
	run(t, f, func(c *Config) { c.HostsFile = path })
	eventually(t, "it looked what it is", func() bool { return len(f.did("GET "+nodesPath+"/me")) > 0 })
	if _, err := os.Stat(path); err == nil {
		t.Error("a hosts file")
	}
}

// TestHostsCannot: a file that cannot be written is reported, and a link is not
// followed.
func TestHostsCannot(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.WriteFile(target, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, filepath.Join(dir, "none", "hosts"), dir} {
		l := newLink("", slog.New(slog.DiscardHandler), nil)
		h := &hostsFile{path: path, own: filepath.Join(dir, "none"), link: l, log: slog.New(slog.DiscardHandler)}
		h.write("10.96.0.7\tedge-1\n")
		if l.state().HostsErr == "" {
			t.Errorf("%s: no error", path)
		}
	}
	if b, _ := os.ReadFile(target); string(b) != "theirs" {
		t.Errorf("what the link leads to: %q", b)
	}
}
