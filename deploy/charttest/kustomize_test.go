package charttest

import (
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

func load(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.Load(ChartDir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestKustomize builds every folder as kubectl apply -k does, and sees to it that
// an image can be set from outside.
func TestKustomize(t *testing.T) {
	for _, dir := range []string{"base", "profiles/net-admin", "profiles/unprivileged", "presets/openyurt", "uninstall"} {
		disk := filesys.MakeFsOnDisk()
		resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(disk, "../manifests/"+dir)
		if err != nil {
			t.Errorf("%s: %v", dir, err)
			continue
		}
		text, err := resources.AsYaml()
		if err != nil {
			t.Fatal(err)
		}
		checkDocuments(t, string(text))
	}
	memory := filesys.MakeFsInMemory()
	const mine = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [all.yaml]\n" +
		"images: [{name: corax, newName: registry.example.com/corax, newTag: v9}]\n"
	files, err := Render(Target{})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"kustomization.yaml": mine, "all.yaml": All(files)} {
		if err := memory.WriteFile("/app/"+name, []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(memory, "/app")
	if err != nil {
		t.Fatal(err)
	}
	text, err := resources.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "image: registry.example.com/corax:v9"); n != 4 {
		t.Errorf("%d images were set, want those of two DaemonSets, the Deployment and the Job", n)
	}
}
