package file_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"corax/control/file"
)

const head = "apiVersion: raven.openyurt.io/v1beta1\nkind: Gateway\n"

func gateway(name string) string { return head + "metadata: {name: " + name + "}\n" }

func TestDecode(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		names    string
		problems []string
	}{
		{"one", gateway("a"), "a", nil},
		{"several documents, empty ones between", "---\n---\n" + gateway("b") + "---\n# nothing\n---\n" + gateway("a"), "b a", nil},
		{"JSON with tabs", "{\n\t\"apiVersion\": \"raven.openyurt.io/v1beta1\",\n\t\"kind\": \"Gateway\",\n\t\"metadata\": {\n\t\t\"name\": \"a\"\n\t}\n}\n", "a", nil},
		{"GatewayList without types", "apiVersion: raven.openyurt.io/v1beta1\nkind: GatewayList\nmetadata: {resourceVersion: \"1\"}\nitems:\n- metadata: {name: a}\n- metadata: {name: b}\n", "a b", nil},
		{"List", "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: raven.openyurt.io/v1beta1, kind: Gateway, metadata: {name: a}}\n", "a", nil},
		{"List of others", "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod}\n- metadata: {name: a}\n", "", []string{
			`f.yaml:5: a list of Gateways holds kind "" of ""`, `f.yaml:4: a list of Gateways holds kind "Pod" of "v1"`,
		}},
		{"what kubectl prints", head + "metadata:\n  name: a\n  creationTimestamp: 2026-01-01T00:00:00Z\n  managedFields: [{manager: x}]\nstatus:\n  conditions: [{type: Ready}]\n  summary: {nodes: 3}\n", "a", nil},
		{"nulls", head + "metadata: {name: a, labels: null}\nspec: {endpoints: null, tunnelConfig: ~}\nstatus:\n", "a", nil},
		{"empty", "", "", []string{"f.yaml:1: no Gateway in it; remove the file to remove its Gateways"}},
		{"comments only", "# later\n", "", []string{"f.yaml:1: no Gateway in it; remove the file to remove its Gateways"}},
		{"syntax", gateway("a") + "---\nfoo: [1\n", "a", []string{"f.yaml:4: not YAML: did not find expected ',' or ']'"}},
		{"not an object", "- 1\n", "", []string{"f.yaml:1: an object is wanted, not a list"}},
		{"no kind", "metadata: {name: a}\n", "", []string{"f.yaml:1: kind: required"}},
		{"other kind", "apiVersion: v1\nkind: Pod\n---\n" + gateway("a"), "a", []string{`f.yaml:1: kind: "Pod" is not Gateway`}},
		{"older version", "apiVersion: raven.openyurt.io/v1alpha1\nkind: Gateway\nmetadata: {name: a}\n", "", []string{
			`f.yaml:1: apiVersion: "raven.openyurt.io/v1alpha1" is not raven.openyurt.io/v1beta1`,
		}},
		{"no name", head + "metadata: {}\n", "", []string{"f.yaml:3: metadata.name: required"}},
		{"bad name", gateway(`"a b"`), "", []string{`f.yaml:3: metadata.name: not a name: "a b"`}},
		{"number as name", gateway("12"), "", []string{`f.yaml:3: metadata.name: a text is wanted, not "12"`}},
		{"unknown fields refuse one document", gateway("a") + "spec:\n  tunnelConfig:\n    replicas: 1\nextra: 1\n---\n" + gateway("b"), "b", []string{
			"f.yaml:7: extra: unknown field", "f.yaml:6: spec.tunnelConfig.replicas: unknown field",
		}},
		{"field twice", head + "metadata:\n  name: a\n  name: b\n", "", []string{"f.yaml:5: metadata.name: already given in line 4"}},
		{"list for an object", gateway("a") + "spec: []\n", "", []string{"f.yaml:4: spec: an object is wanted, not a list"}},
		{"text for a list", gateway("a") + "spec:\n  endpoints: n1\n", "", []string{`f.yaml:5: spec.endpoints: a list is wanted, not "n1"`}},
		{"object for a text", gateway("a") + "spec:\n  exposeType: {}\n", "", []string{"f.yaml:5: spec.exposeType: a text is wanted, not an object"}},
		{"alias", gateway("a") + "spec: &s\n  exposeType: PublicIP\nstatus: *s\n", "", []string{"f.yaml:6: status: aliases are not accepted"}},
		{"merge key", gateway("a") + "spec:\n  <<: {exposeType: PublicIP}\n", "", []string{`f.yaml:5: spec: the name of a field must be a text, not "<<"`}},
		{"name twice", gateway("a") + "---\n" + gateway("a"), "a", []string{"f.yaml:5: metadata.name: gateway a is already defined in line 1"}},
		{"bad values", gateway("a") + "spec:\n  endpoints:\n  - nodeName: n\n    type: tunnel\n    port: abc\n    underNAT: \"true\"\n    publicIP: 1.2.3\n    config:\n      publicKey: 5\n", "a", []string{
			`f.yaml:12: gateway/a: spec.endpoints[0].config["publicKey"]: a text is wanted, not "5"`,
			`f.yaml:8: gateway/a: spec.endpoints[0].port: a number is wanted, not "abc"`,
			`f.yaml:10: gateway/a: spec.endpoints[0].publicIP: not an IP address: "1.2.3"`,
			`f.yaml:9: gateway/a: spec.endpoints[0].underNAT: true or false is wanted, not "true"`,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			gws, problems := file.Decode("f.yaml", []byte(tt.in))
			var names, texts []string
			for _, g := range gws {
				names = append(names, g.Metadata.Name)
			}
			for _, p := range problems {
				texts = append(texts, p.String())
			}
			if got := strings.Join(names, " "); got != tt.names {
				t.Errorf("gateways %q, want %q", got, tt.names)
			}
			if diff := cmp.Diff(tt.problems, texts); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

// TestDecodeBadValuesCountAsAbsent checks what is left of fields with values of
// the wrong type.
func TestDecodeBadValuesCountAsAbsent(t *testing.T) {
	gws, _ := file.Decode("f", []byte(gateway("a")+
		"spec:\n  tunnelConfig: {Replicas: many}\n  endpoints:\n  - {nodeName: n, type: tunnel, underNAT: \"true\", publicPort: x, config: {publicKey: 5, other: x}}\n"))
	s := gws[0].Spec
	e := s.Endpoints[0]
	if s.TunnelConfig.Replicas != -1 || !e.UnderNAT || e.ExposedPort() != 4500 {
		t.Errorf("got %+v, %+v", s.TunnelConfig, e)
	}
	if diff := cmp.Diff(map[string]string{"other": "x"}, e.Config); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeLimits(t *testing.T) {
	var many strings.Builder
	for i := range file.MaxObjects + 1 {
		fmt.Fprintf(&many, "---\n{apiVersion: raven.openyurt.io/v1beta1, kind: Gateway, metadata: {name: g%d}}\n", i)
	}
	for _, tt := range []struct {
		name, in, want string
		gateways       int
	}{
		{"size", strings.Repeat("#", file.MaxSize+1), "larger than", 0},
		{"objects", many.String(), "more than 4096 Gateways", file.MaxObjects},
		{"documents", strings.Repeat("---\n", 2*file.MaxObjects+2), "more than 8192 documents", 0},
		{"unknown fields", gateway("a") + strings.Repeat("x", 500) + ": 1\n", "xxx...: unknown field", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			gws, problems := file.Decode("f.yaml", []byte(tt.in))
			if len(problems) != 1 || !strings.Contains(problems[0].String(), tt.want) || len(gws) != tt.gateways {
				t.Errorf("%d gateways, %.300v", len(gws), problems)
			}
		})
	}
	var fields strings.Builder
	fields.WriteString(gateway("a"))
	for i := range 50_000 {
		fmt.Fprintf(&fields, "f%d: 1\n", i)
	}
	if _, problems := file.Decode("f.yaml", []byte(fields.String())); len(problems) > 200 {
		t.Errorf("%d problems of one file", len(problems))
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(gateway("a")))
	f.Add([]byte(gateway("a") + "---\n" + gateway("b") + "spec: {endpoints: [{nodeName: n, type: tunnel, port: x}]}\n"))
	f.Add([]byte("{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[{}]}"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte(gateway("a") + "status: {nodes: [{nodeName: n, privateIP: 10.0.0.1, subnets: [10.0.0.0/8, x]}]}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		gws, problems := file.Decode("f.yaml", data)
		if len(gws) == 0 && len(problems) == 0 {
			t.Error("nothing, and no reason")
		}
		seen := map[string]bool{}
		for i := range gws {
			name := gws[i].Metadata.Name
			if name == "" || seen[name] {
				t.Errorf("name %q", name)
			}
			seen[name] = true
		}
		for _, p := range problems {
			if !strings.HasPrefix(p.Source, "f.yaml:") || p.Message == "" || len(p.String()) > 2000 {
				t.Errorf("problem %q", p)
			}
		}
	})
}
