package control_test

import (
	"bufio"
	"crypto/sha256"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"corax/control"
	"corax/control/file"
	"corax/dataplane/key"
)

var update = flag.Bool("update", false, "write the plans into testdata")

// TestGolden plans for each local/NAME of each testdata/*.txtar over its YAML
// files, and compares with want/NAME. In the files, KEY-x stands for a public
// key and in the results key(x), overlay(x) for that key and its address.
func TestGolden(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) { golden(t, path) })
	}
}

func golden(t *testing.T, path string) {
	a, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	names := newKeyNames()
	s := snapshotOf(a, names)
	out := &txtar.Archive{Comment: a.Comment}
	for _, f := range a.Files {
		if !strings.HasPrefix(f.Name, "want/") {
			out.Files = append(out.Files, f)
		}
	}
	for _, f := range a.Files {
		node, ok := strings.CutPrefix(f.Name, "local/")
		if !ok {
			continue
		}
		l, s := parseLocal(t, node, string(f.Data), s, names)
		got := render(control.Plan(s, l), names)
		out.Files = append(out.Files, txtar.File{Name: "want/" + node, Data: []byte(got)})
		if *update {
			continue
		}
		i := slices.IndexFunc(a.Files, func(f txtar.File) bool { return f.Name == "want/"+node })
		if i < 0 {
			t.Fatalf("no want/%s; run with -update", node)
		}
		if diff := cmp.Diff(string(a.Files[i].Data), got); diff != "" {
			t.Errorf("plan of %s (-want +got):\n%s", node, diff)
		}
	}
	if *update {
		if err := os.WriteFile(path, txtar.Format(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// snapshotOf decodes the YAML files of an archive as the directory source would.
func snapshotOf(a *txtar.Archive, names *keyNames) control.Snapshot {
	s := control.Snapshot{EnableTunnel: true, EnableProxy: true}
	for _, f := range a.Files {
		if filepath.Ext(f.Name) == ".yaml" {
			gws, problems := file.Decode(f.Name, names.expand(f.Data))
			s.Gateways = append(s.Gateways, gws...)
			s.Problems = append(s.Problems, problems...)
		}
	}
	return s
}

// parseLocal reads the facts of a host: one word and its value a line.
func parseLocal(t *testing.T, node, facts string, s control.Snapshot, names *keyNames) (control.Local, control.Snapshot) {
	t.Helper()
	l := control.Local{Node: node, PublicKey: names.key(node)}
	var err error
	for sc := bufio.NewScanner(strings.NewReader(facts)); sc.Scan() && err == nil; {
		word, value, _ := strings.Cut(sc.Text(), " ")
		switch word {
		case "ip":
			l.NodeIP, err = netip.ParseAddr(value)
		case "lan":
			var p netip.Prefix
			p, err = netip.ParsePrefix(value)
			l.Prefixes = append(l.Prefixes, p)
		case "apiserver":
			l.APIServer, err = netip.ParseAddr(value)
		case "mtu":
			l.LinkMTU, err = strconv.Atoi(value)
		case "key":
			l.PublicKey = names.key(value)
		case "tunnel":
			s.EnableTunnel = value == "on"
		case "proxy":
			s.EnableProxy = value == "on"
		case "allow":
			if s.AllowClosed = value == "closed"; !s.AllowClosed {
				s.AllowSources, _, err = control.ParseAllowList(value)
			}
		case "heard":
			l.Heard = map[key.Public]time.Time{names.key(value): time.Unix(1, 0)}
		case "claim":
			f := strings.Fields(value) // gateway, epoch, who, nodes
			c := control.Claim{Gateway: f[0], From: names.key(f[2]), Active: strings.Split(f[3], ",")}
			c.Epoch, err = strconv.ParseUint(f[1], 10, 64)
			l.Claims = append(l.Claims, c)
		case "port":
			var n int
			n, err = strconv.Atoi(value)
			l.TunnelPort = uint16(n)
		case "":
		default:
			err = fmt.Errorf("unknown fact %q", word)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return l, s
}

// keyNames gives short names to keys.
type keyNames struct{ of map[key.Public]string }

func newKeyNames() *keyNames { return &keyNames{map[key.Public]string{}} }

func (k *keyNames) key(name string) key.Public {
	p := key.Public(sha256.Sum256([]byte(name)))
	k.of[p] = name
	return p
}

var keyMark = regexp.MustCompile(`KEY-([a-z0-9-]+)`)

func (k *keyNames) expand(data []byte) []byte {
	return keyMark.ReplaceAllFunc(data, func(m []byte) []byte {
		return []byte(k.key(string(m[len("KEY-"):])).String())
	})
}

// shorten puts the names back.
func (k *keyNames) shorten(s string) string {
	for p, name := range k.of {
		s = strings.ReplaceAll(s, p.String(), "key("+name+")")
		s = strings.ReplaceAll(s, p.Overlay().String(), "overlay("+name+")")
	}
	return s
}
