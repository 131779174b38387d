package control_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"corax/control"
	"corax/control/api/v1beta1"
)

func TestProblemString(t *testing.T) {
	for _, tt := range []struct {
		p    control.Problem
		want string
	}{
		{control.Problem{Object: "gateway/a", Field: "spec.x", Message: "bad"}, "gateway/a: spec.x: bad"},
		{control.Problem{Object: "gateway/a", Message: "bad"}, "gateway/a: bad"},
		{control.Problem{Object: "gateway/a", Field: "spec.x", Message: "bad", Source: "a.yaml:3"}, "a.yaml:3: gateway/a: spec.x: bad"},
		{control.Problem{Object: "file/a.yaml", Field: "spec.x", Message: "bad", Source: "a.yaml:3"}, "a.yaml:3: spec.x: bad"},
		{control.Problem{Object: "file/dir", Message: "away"}, "file/dir: away"},
	} {
		if got := tt.p.String(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestSortProblems(t *testing.T) {
	a, b, c := control.Problem{Object: "a"}, control.Problem{Object: "b"}, control.Problem{Object: "b", Field: "f"}
	if diff := cmp.Diff([]control.Problem{a, b, c}, control.SortProblems([]control.Problem{c, b, a, b, c})); diff != "" {
		t.Error(diff)
	}
}

func TestCheck(t *testing.T) {
	g := v1beta1.Gateway{Metadata: v1beta1.ObjectMeta{Name: "a"}}
	g.Spec.ExposeType = "Somehow"
	want := []control.Problem{{
		Object: "gateway/a", Field: "spec.exposeType", Message: `"Somehow" is none of ["" "PublicIP" "LoadBalancer"]`,
	}}
	if diff := cmp.Diff(want, control.Check(&g)); diff != "" {
		t.Error(diff)
	}
}
