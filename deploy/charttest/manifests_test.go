package charttest

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the manifests anew")

// generated is the first line of every manifest.
const generated = "# Code generated from the chart (cd deploy/charttest && go test -update). DO NOT EDIT.\n"

// manifests says which templates, rendered with which values, each folder has.
var manifests = []struct {
	dir       string
	values    map[string]any
	templates []string
}{
	{"base", nil, []string{
		"admission.yaml", "config.yaml", "controller.yaml", "namespace.yaml",
		"rbac-agent.yaml", "rbac-controller.yaml", "rbac-hub.yaml", "serviceaccounts.yaml",
	}},
	{"profiles/net-admin", nil, []string{"agents.yaml"}},
	{"profiles/unprivileged", map[string]any{"agent": map[string]any{"profile": "unprivileged"}}, []string{"agents.yaml"}},
	{"uninstall", nil, []string{"uninstall.yaml"}},
	{"presets/openyurt", map[string]any{"preset": "openyurt"}, []string{
		"admission.yaml", "agents.yaml", "config.yaml", "namespace.yaml",
		"rbac-agent.yaml", "rbac-hub.yaml", "serviceaccounts.yaml",
	}},
}

// TestManifestsAreTheChart compares every manifest with what the chart gives:
// there are no two sources of truth.
func TestManifestsAreTheChart(t *testing.T) {
	for _, m := range manifests {
		files, err := Render(Target{Values: m.values})
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join("../manifests", m.dir)
		for _, name := range m.templates {
			want := generated + files[name]
			at := filepath.Join(dir, name)
			if *update {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(at, []byte(want), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := os.ReadFile(at)
			if err != nil {
				t.Error(err)
			} else if string(got) != want {
				t.Errorf("%s is not what the chart renders; see the flag -update", at)
			}
		}
		checkOnlyThese(t, dir, m.templates)
	}
}

// checkOnlyThese fails on a manifest that nothing renders any more.
func checkOnlyThese(t *testing.T, dir string, names []string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if base := filepath.Base(f); base != "kustomization.yaml" && !slices.Contains(names, base) {
			t.Errorf("%s: no template renders it", f)
		}
	}
}

// TestManifestsAreWhole fails when a template makes objects that no folder has:
// the presets must not lack what the chart installs.
func TestManifestsAreWhole(t *testing.T) {
	elsewhere := []string{"crd.yaml"} // deploy/crd
	for preset, dirs := range map[string][]string{
		"standalone": {"base", "profiles/net-admin", "uninstall"},
		"openyurt":   {"presets/openyurt"},
	} {
		files, err := Render(Target{Values: map[string]any{"preset": preset}})
		if err != nil {
			t.Fatal(err)
		}
		var have []string
		for _, m := range manifests {
			if slices.Contains(dirs, m.dir) {
				have = append(have, m.templates...)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(files)) {
			if strings.HasSuffix(name, ".yaml") && !slices.Contains(elsewhere, name) && !slices.Contains(have, name) {
				t.Errorf("preset %s: %s is in no manifest", preset, name)
			}
		}
	}
}
