package file_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"corax/control"
	"corax/control/file"
	"corax/dataplane/key"
)

// TestDocumentedGateways reads every Gateway that the documentation shows, as an
// agent would, with a key in place of the one that the reader has to put in.
func TestDocumentedGateways(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, "../../README.md", "../../ARCHITECTURE.md") {
		for i, text := range gatewaysIn(t, page) {
			if _, problems := file.Decode(filepath.Base(page), []byte(text)); len(problems) > 0 {
				t.Errorf("%s, Gateway %d: %v", page, i+1, problems)
			}
		}
	}
}

// TestREADMEDeployment follows the README's first deployment: the Gateway that it
// shows makes its gateway node a hub, and its node a node of that.
func TestREADMEDeployment(t *testing.T) {
	texts := gatewaysIn(t, "../../README.md")
	if len(texts) != 1 {
		t.Fatalf("the README shows %d Gateways", len(texts))
	}
	gateways, problems := file.Decode("README.md", []byte(texts[0]))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	s := control.Snapshot{Gateways: gateways, EnableTunnel: true, EnableProxy: true}
	for _, tt := range []struct {
		node, ip string
		own      key.Public
		role     string
		carriers int
	}{
		{"cloud-gw", "10.0.0.10", documentedKey, "gateway", 0},
		{"cloud-1", "10.0.0.11", key.Public{1}, "node", 1},
	} {
		plan := control.Plan(s, control.Local{Node: tt.node, NodeIP: netip.MustParseAddr(tt.ip), PublicKey: tt.own, LinkMTU: 1500, TunnelPort: 4500})
		if plan.Role.String() != tt.role || plan.Gateway != "cloud" || len(plan.Carriers) != tt.carriers || len(plan.Problems) != 0 {
			t.Errorf("%s is %v of %q, %d carriers, problems %v", tt.node, plan.Role, plan.Gateway, len(plan.Carriers), plan.Problems)
		}
		if len(plan.Config.Self.Subnets) != 1 || len(plan.Config.VTEPs) != 1 {
			t.Errorf("%s has subnets %v and VTEPs %v", tt.node, plan.Config.Self.Subnets, plan.Config.VTEPs)
		}
	}
}

var (
	documentedKey = key.Public{7}
	fenced        = regexp.MustCompile("(?ms)^( *)```ya?ml\n(.*?)^ *```$")
	placeholder   = regexp.MustCompile(`"<[^>"]*>"`)
)

// gatewaysIn returns the YAML blocks of a page that hold a Gateway.
func gatewaysIn(t *testing.T, page string) (texts []string) {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range fenced.FindAllStringSubmatch(string(b), -1) {
		text := strings.ReplaceAll("\n"+m[2], "\n"+m[1], "\n")[1:]
		if strings.Contains(text, "kind: Gateway") {
			texts = append(texts, placeholder.ReplaceAllString(text, `"`+documentedKey.String()+`"`))
		}
	}
	return texts
}
