package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"strings"
	"testing"
)

// A rule says which packages may import something, and why nobody else may.
// Patterns are path.Match patterns below the module, "control/**" takes the
// folder and everything below it.
type rule struct {
	imports string   // prefix of the import path
	allowed []string // packages of ours that may
	why     string
}

var rules = []rule{
	{
		"gvisor.dev/gvisor",
		[]string{"dataplane/netstack", "dataplane/vxlan"},
		"transit packets never enter gVisor; it ends where packets are for us, and who is beyond that gets listeners and dial functions",
	},
	{
		"golang.zx2c4.com/wireguard",
		[]string{"dataplane/wg", "dataplane/hostnet"},
		"one adapter, so that its fork can stand in",
	},
	{
		"k8s.io/",
		[]string{"control/kube/**", "control/controller/**", "cmd/corax", "integration/**"},
		"a build without Kubernetes stays small",
	},
	{
		"sigs.k8s.io/",
		[]string{"control/kube/**", "control/controller/**", "cmd/corax", "integration/**"},
		"a build without Kubernetes stays small",
	},
	{
		"github.com/prometheus/",
		[]string{"cmd/corax", "control/controller/**"},
		"packages have counters; only the command line knows how they are scraped",
	},
	{
		"github.com/spf13/",
		[]string{"cmd/corax"},
		"flags are parsed once, at the edge",
	},
	{
		"github.com/vishvananda/netlink",
		[]string{"dataplane/hostnet", "integration/**"},
		"one place changes the host",
	},
	{
		"github.com/google/nftables",
		[]string{"dataplane/hostnet", "integration/**"},
		"one place changes the host",
	},
	{
		"github.com/pion/",
		[]string{"nat/stun"},
		"the rest of nat sees messages as values",
	},
	{
		"github.com/huin/goupnp",
		[]string{"nat/portmap"},
		"routers speak SOAP to one package",
	},
	{
		"github.com/fxamacker/cbor",
		[]string{"control/hello"},
		"peers exchange CBOR in hellos only",
	},

	{
		"corax/cmd/", nil,
		"nothing imports the command",
	},
	{
		"corax/control/file",
		[]string{"cmd/corax"},
		"sources meet the rest in wire.go",
	},
	{
		"corax/control",
		[]string{"control/**", "cmd/corax", "proxy/**", "nat", "integration/**"},
		"the dataplane is told what to do by values, it does not know who decided",
	},
	{
		"corax/nat",
		[]string{"nat", "cmd/corax", "integration/lab"},
		"its machinery meets in the agent at its root, and that meets the rest in wire.go",
	},
	{
		"corax/dataplane/fabric",
		[]string{"cmd/corax"},
		"siblings meet in wire.go through dataplane.Sender",
	},
	{
		"corax/dataplane/wg",
		[]string{"cmd/corax", "integration/**"},
		"siblings meet in wire.go through dataplane.Sender",
	},
	{
		"corax/dataplane/vxlan",
		[]string{"cmd/corax", "integration/**"},
		"siblings meet in wire.go through dataplane.Sender",
	},
	{
		"corax/dataplane/netstack",
		[]string{"cmd/corax", "proxy/forward", "proxy/inner"},
		"siblings meet in wire.go through dataplane.Sender; the rest of proxy is given listeners and dial functions",
	},
	{
		"corax/dataplane/hostnet",
		[]string{"cmd/corax", "dataplane/hostnet/userns"},
		"siblings meet in wire.go through dataplane.Sender",
	},
	{
		"corax/proxy",
		[]string{"proxy/**", "cmd/corax", "integration/**"},
		"host access sits on top: whatever it needs of the rest is given to it in proxy.go",
	},
	{
		"corax/proxy/front",
		[]string{"cmd/corax"},
		"the two ends of the channel know each other by the preamble alone",
	},
	{
		"corax/proxy/edge",
		[]string{"cmd/corax"},
		"the two ends of the channel know each other by the preamble alone",
	},
	{
		"corax/proxy/channel",
		[]string{"cmd/corax"},
		"a front dials through proxy.Dialer, and can be tested without an overlay",
	},
	{
		"corax/integration",
		[]string{"integration/**"},
		"tests are not shipped",
	},
}

// roots are values and pure functions: they may import these of ours, and no
// machinery.
var roots = map[string][]string{
	"dataplane":           {"corax/dataplane/key"},
	"dataplane/key":       {},
	"control":             {"corax/dataplane", "corax/dataplane/key", "corax/control/api/v1beta1"},
	"control/api/v1beta1": {"corax/dataplane/key"},
	"control/file":        {"corax/control", "corax/control/api/v1beta1", "corax/control/internal/statefile"},
	"control/kube": {
		"corax/control", "corax/control/api/v1beta1", "corax/control/internal/statefile", "corax/control/kube/gateway", "corax/dataplane",
	},
	"control/kube/gateway":       {"corax/control/api/v1beta1"},
	"control/internal/statefile": {},
	"control/hello":              {"corax/dataplane", "corax/dataplane/key"},
	"dataplane/fabric":           {"corax/dataplane", "corax/dataplane/key"},
	"dataplane/wg":               {"corax/dataplane", "corax/dataplane/key", "corax/dataplane/internal/udpbatch"},
	"dataplane/vxlan":            {"corax/dataplane", "corax/dataplane/key", "corax/dataplane/internal/offload", "corax/dataplane/internal/udpbatch"},
	"dataplane/hostnet":          {"corax/dataplane", "corax/dataplane/key", "corax/dataplane/internal/offload"},
	"dataplane/hostnet/userns":   {"corax/dataplane", "corax/dataplane/hostnet"},
	"dataplane/netstack":         {"corax/dataplane", "corax/dataplane/key", "corax/dataplane/internal/offload"},
	"dataplane/internal/*":       {"corax/dataplane", "corax/dataplane/key"},
	"nat/**":                     {"corax/dataplane/key"},
	"nat": {
		"corax/control/hello", "corax/dataplane/key", "corax/nat/cost", "corax/nat/path", "corax/nat/portmap",
		"corax/nat/relay", "corax/nat/stream", "corax/nat/stun",
	},
	"proxy":           {"corax/dataplane/key"},
	"proxy/preamble":  {"corax/proxy"},
	"proxy/splice":    {},
	"proxy/datagram":  {},
	"proxy/edge":      {"corax/control", "corax/proxy", "corax/proxy/preamble", "corax/proxy/splice"},
	"proxy/channel":   {"corax/control", "corax/proxy", "corax/proxy/preamble"},
	"proxy/forward":   {"corax/dataplane", "corax/dataplane/key", "corax/dataplane/netstack", "corax/proxy/datagram", "corax/proxy/splice"},
	"proxy/inner":     {"corax/dataplane", "corax/dataplane/netstack", "corax/proxy/splice"},
	"proxy/outbound":  {"corax/dataplane", "corax/proxy/datagram", "corax/proxy/splice"},
	"proxy/socks":     {"corax/dataplane", "corax/proxy/datagram", "corax/proxy/outbound", "corax/proxy/splice"},
	"proxy/front":     {"corax/proxy", "corax/proxy/splice"},
	"integration/lab": {"corax/control/api/v1beta1", "corax/dataplane", "corax/dataplane/key", "corax/nat/stun"},
}

type listed struct {
	ImportPath string
	Imports    []string
}

func TestImportsPointOneWay(t *testing.T) {
	for _, p := range listPackages(t) {
		for _, imp := range p.Imports {
			for _, r := range rules {
				if strings.HasPrefix(imp, r.imports) && !inAny(p.ImportPath, r.allowed) && imp != "corax/"+p.ImportPath {
					t.Errorf("%s imports %s: %s", p.ImportPath, imp, r.why)
					break
				}
			}
			if allowed, ok := rootRule(p.ImportPath); ok && strings.HasPrefix(imp, "corax/") && !contains(allowed, imp) {
				t.Errorf("%s imports %s: of ours it may import only %q", p.ImportPath, imp, allowed)
			}
		}
	}
}

// TestRulesAreAlive fails when a rule names a package that is gone, so that the
// rules do not rot.
func TestRulesAreAlive(t *testing.T) {
	later := map[string]bool{"control/controller/**": true}
	pkgs := listPackages(t)
	alive := func(pattern string) bool {
		for _, p := range pkgs {
			if match(pattern, p.ImportPath) {
				return true
			}
		}
		return later[pattern]
	}
	for pattern := range roots {
		if !alive(pattern) {
			t.Errorf("no package matches %q", pattern)
		}
	}
	for _, r := range rules {
		for _, pattern := range r.allowed {
			if !alive(pattern) {
				t.Errorf("rule for %s: no package matches %q", r.imports, pattern)
			}
		}
	}
}

func listPackages(t *testing.T) []listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "corax/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		p.ImportPath = strings.TrimPrefix(p.ImportPath, "corax/")
		pkgs = append(pkgs, p)
	}
	if len(pkgs) < 5 {
		t.Fatalf("go list found only %d packages", len(pkgs))
	}
	return pkgs
}

func rootRule(pkg string) ([]string, bool) {
	if allowed, ok := roots[pkg]; ok {
		return allowed, true
	}
	for pattern, allowed := range roots {
		if match(pattern, pkg) {
			return allowed, true
		}
	}
	return nil, false
}

func inAny(pkg string, patterns []string) bool {
	for _, p := range patterns {
		if match(p, pkg) {
			return true
		}
	}
	return false
}

func match(pattern, pkg string) bool {
	if base, ok := strings.CutSuffix(pattern, "/**"); ok {
		return pkg == base || strings.HasPrefix(pkg, base+"/")
	}
	ok, err := path.Match(pattern, pkg)
	return err == nil && ok
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}
