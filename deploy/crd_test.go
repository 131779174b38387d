package deploy

import (
	"reflect"
	"regexp"
	"strings"
	"testing"

	"corax/control/api/v1beta1"
	"corax/control/kube/gateway"
)

// schema is the part of an OpenAPI schema that the tests look at.
type schema struct {
	Type                 string             `yaml:"type"`
	Properties           map[string]*schema `yaml:"properties"`
	Items                *schema            `yaml:"items"`
	AdditionalProperties *schema            `yaml:"additionalProperties"`
	Maximum              *int               `yaml:"maximum"`
	MaxItems             *int               `yaml:"maxItems"`
	Pattern              string             `yaml:"pattern"`
	Unknown              bool               `yaml:"x-kubernetes-preserve-unknown-fields"`
	ListType             string             `yaml:"x-kubernetes-list-type"`
	Validations          []struct {
		Rule string `yaml:"rule"`
	} `yaml:"x-kubernetes-validations"`
}

type crd struct {
	Spec struct {
		Group      string         `yaml:"group"`
		Scope      string         `yaml:"scope"`
		Names      map[string]any `yaml:"names"`
		Conversion map[string]any `yaml:"conversion"`
		Versions   []struct {
			Name    string `yaml:"name"`
			Served  bool   `yaml:"served"`
			Storage bool   `yaml:"storage"`
			Columns []struct {
				Name     string `yaml:"name"`
				JSONPath string `yaml:"jsonPath"`
				Priority int    `yaml:"priority"`
			} `yaml:"additionalPrinterColumns"`
			Schema struct {
				V3 *schema `yaml:"openAPIV3Schema"`
			} `yaml:"schema"`
			Subresources map[string]any `yaml:"subresources"`
		} `yaml:"versions"`
	} `yaml:"spec"`
}

func readCRD(t *testing.T) crd {
	t.Helper()
	var c crd
	read(t, "crd/raven.openyurt.io_gateways.yaml")[0].into(t, &c)
	if len(c.Spec.Versions) != 2 {
		t.Fatalf("%d versions", len(c.Spec.Versions))
	}
	return c
}

// at follows a path of property names; "[]" is the items of a list.
func at(t *testing.T, s *schema, path string) *schema {
	t.Helper()
	for name := range strings.SplitSeq(path, ".") {
		if name == "[]" {
			s = s.Items
		} else {
			s = s.Properties[name]
		}
		if s == nil {
			t.Fatalf("the schema has no %s of %s", name, path)
		}
	}
	return s
}

func TestCRDVersions(t *testing.T) {
	c := readCRD(t)
	alpha, beta := c.Spec.Versions[0], c.Spec.Versions[1]
	if alpha.Name != "v1alpha1" || alpha.Served || alpha.Storage || !alpha.Schema.V3.Unknown {
		t.Error("v1alpha1 must be listed, not served, and lose nothing")
	}
	if beta.Name != v1beta1.Version || !beta.Served || !beta.Storage || beta.Subresources["status"] == nil {
		t.Error("v1beta1 must be served and stored, with a status of its own")
	}
	if c.Spec.Group != v1beta1.Group || c.Spec.Scope != "Cluster" || c.Spec.Conversion["strategy"] != "None" {
		t.Errorf("group %s, scope %s, conversion %v", c.Spec.Group, c.Spec.Scope, c.Spec.Conversion)
	}
	var columns []string
	for _, col := range beta.Columns {
		if col.Priority == 0 {
			columns = append(columns, strings.ToUpper(col.Name))
		}
		if path, ok := strings.CutPrefix(col.JSONPath, ".status.summary."); ok {
			at(t, beta.Schema.V3, "status.summary."+path)
		}
	}
	if got := strings.Join(columns, " "); got != "ACTIVE EXPOSE NODES READY AGE" {
		t.Errorf("columns %s", got)
	}
}

// TestCRDHasEveryField compares the schema with the types: the API server drops
// what the one has and the other has not.
func TestCRDHasEveryField(t *testing.T) {
	s := readCRD(t).Spec.Versions[1].Schema.V3
	compare(t, "spec", reflect.TypeFor[v1beta1.GatewaySpec](), at(t, s, "spec"))
	compare(t, "status", reflect.TypeFor[gateway.Status](), at(t, s, "status"))
}

func compare(t *testing.T, path string, typ reflect.Type, s *schema) {
	t.Helper()
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	wrong := func(want string) {
		t.Helper()
		if s.Type != want {
			t.Errorf("%s: the schema says %q, the type %s", path, s.Type, want)
		}
	}
	switch kind := typ.Kind(); {
	case typ.PkgPath() == "k8s.io/apimachinery/pkg/apis/meta/v1" && typ.Name() == "Time", kind == reflect.String:
		wrong("string")
	case kind == reflect.Bool:
		wrong("boolean")
	case kind >= reflect.Int && kind <= reflect.Int64:
		wrong("integer")
	case kind == reflect.Slice:
		if wrong("array"); s.Items != nil {
			compare(t, path+"[]", typ.Elem(), s.Items)
		}
	case kind == reflect.Map:
		if wrong("object"); s.AdditionalProperties == nil {
			t.Errorf("%s: no schema for the values", path)
		}
	case kind == reflect.Struct:
		wrong("object")
		compareFields(t, path, typ, s)
	default:
		t.Errorf("%s: a %s", path, kind)
	}
}

func compareFields(t *testing.T, path string, typ reflect.Type, s *schema) {
	t.Helper()
	names := map[string]bool{}
	for _, f := range reflect.VisibleFields(typ) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || name == "" {
			continue
		}
		names[name] = true
		if p := s.Properties[name]; p == nil {
			t.Errorf("%s.%s: not in the schema", path, name)
		} else {
			compare(t, path+"."+name, f.Type, p)
		}
	}
	for name := range s.Properties {
		if !names[name] {
			t.Errorf("%s.%s: not in the type", path, name)
		}
	}
}

// TestCRDKeeps checks what keeps Raven's objects whole: unknown fields stay, and
// nobody merges a list whose order counts.
func TestCRDKeeps(t *testing.T) {
	s := readCRD(t).Spec.Versions[1].Schema.V3
	for _, path := range []string{
		"spec", "spec.proxyConfig", "spec.tunnelConfig", "spec.endpoints.[]", "status", "status.nodes.[]",
		"status.activeEndpoints.[]", "status.summary",
	} {
		if !at(t, s, path).Unknown {
			t.Errorf("%s loses unknown fields", path)
		}
	}
	if e := at(t, s, "spec.endpoints"); e.ListType != "atomic" || e.MaxItems == nil || *e.MaxItems != 64 {
		t.Error("spec.endpoints must be atomic, with 64 entries at most")
	}
	if m := at(t, s, "spec.tunnelConfig.Replicas").Maximum; m == nil || *m != v1beta1.MaxReplicas {
		t.Error("tunnelConfig.Replicas has another bound than the program")
	}
	for _, v := range at(t, s, "spec").Validations {
		if strings.Contains(v.Rule, "isIP") {
			t.Errorf("isIP needs Kubernetes 1.31: %s", v.Rule)
		}
	}
}

func TestCRDPatterns(t *testing.T) {
	s := readCRD(t).Spec.Versions[1].Schema.V3
	tests := []struct {
		path, value string
		want        bool
	}{
		{"spec.endpoints.[].publicIP", "", true},
		{"spec.endpoints.[].publicIP", "203.0.113.7", true},
		{"spec.endpoints.[].publicIP", "2001:db8::1", true},
		{"spec.endpoints.[].publicIP", "::ffff:203.0.113.7", true},
		{"spec.endpoints.[].publicIP", "hub.example.com", false},
		{"spec.endpoints.[].publicIP", "203.0.113", false},
		{"spec.endpoints.[].publicIP", "203.0.113.7:4500", false},
		{"spec.endpoints.[].publicIP", "fe80::1%eth0", false},
		{"spec.proxyConfig.proxyHTTPSPort", "", true},
		{"spec.proxyConfig.proxyHTTPSPort", "10250,9100", true},
		{"spec.proxyConfig.proxyHTTPSPort", " 10250 , 9100 ", true},
		{"spec.proxyConfig.proxyHTTPSPort", "10250,", false},
		{"spec.proxyConfig.proxyHTTPSPort", "https", false},
	}
	for _, tt := range tests {
		p := regexp.MustCompile(at(t, s, tt.path).Pattern)
		if got := p.MatchString(tt.value); got != tt.want {
			t.Errorf("%s: %q matches: %v, want %v", tt.path, tt.value, got, tt.want)
		}
	}
}
