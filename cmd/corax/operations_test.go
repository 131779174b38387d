package main

import (
	"os"
	"strings"
	"testing"

	"corax/nat/path"
)

// docs/operations.md has every reason that status and paths may show.
func TestReasonsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	// The text of what is no reason marks the end of the list.
	last := path.ReasonNone
	for r := path.ReasonNone; r == path.ReasonNone || r.Code() != path.ReasonNone.Code(); r++ {
		if !strings.Contains(string(doc), "\n| "+r.String()+" |") {
			t.Errorf("%s: no row for %q", r.Code(), r)
		}
		last = r
	}
	if last < path.ReasonForbidden {
		t.Errorf("only %d reasons were found", last)
	}
}
