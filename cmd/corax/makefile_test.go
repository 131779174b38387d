package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestMakefile keeps the Makefile short, and every target in its help.
func TestMakefile(t *testing.T) {
	b, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), "\n"); n > 80 {
		t.Errorf("the Makefile has %d lines, at most 80 are wanted", n)
	}
	phony := regexp.MustCompile(`(?m)^\.PHONY: (.*)$`).FindStringSubmatch(string(b))
	if phony == nil {
		t.Fatal("no .PHONY")
	}
	for target := range strings.FieldsSeq(phony[1]) {
		if !regexp.MustCompile(`(?m)^` + target + `:.* ## [A-Z]`).Match(b) {
			t.Errorf("no help for %s", target)
		}
	}
}
