package deploy

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// object is one document of a manifest.
type object struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   struct {
		Name      string            `yaml:"name"`
		Namespace string            `yaml:"namespace"`
		Labels    map[string]string `yaml:"labels"`
	} `yaml:"metadata"`

	file string
	node yaml.Node
}

func (o *object) id() string {
	return strings.Join([]string{o.Kind, o.Metadata.Namespace, o.Metadata.Name}, " ")
}

// into decodes the whole document.
func (o *object) into(t *testing.T, v any) {
	t.Helper()
	if err := o.node.Decode(v); err != nil {
		t.Fatalf("%s: %s: %v", o.file, o.id(), err)
	}
}

// read returns the documents of a file. A key given twice is an error.
func read(t *testing.T, file string) []*object {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var objects []*object
	for dec := yaml.NewDecoder(bytes.NewReader(b)); ; {
		o := &object{file: file}
		if err := dec.Decode(&o.node); errors.Is(err, io.EOF) {
			return objects
		} else if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		// Decoding to a map is what finds repeated keys.
		var strict map[string]any
		o.into(t, &strict)
		o.into(t, o)
		objects = append(objects, o)
	}
}

// flavours are the sets of objects that somebody applies together.
var flavours = []string{
	"manifests/profiles/net-admin", "manifests/profiles/unprivileged", "manifests/presets/openyurt", "manifests/uninstall",
}

// closure returns the objects of a kustomization and of those that it names, and
// fails on files that none of them names.
func closure(t *testing.T, dir string) []*object {
	t.Helper()
	ks := read(t, filepath.Join(dir, "kustomization.yaml"))
	if len(ks) != 1 || ks[0].Kind != "Kustomization" {
		t.Fatalf("%s: no kustomization", dir)
	}
	var k struct {
		Resources []string `yaml:"resources"`
	}
	ks[0].into(t, &k)
	var objects []*object
	for _, r := range k.Resources {
		at := filepath.Join(dir, r)
		if st, err := os.Stat(at); err != nil {
			t.Fatal(err)
		} else if st.IsDir() {
			objects = append(objects, closure(t, at)...)
		} else {
			objects = append(objects, read(t, at)...)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if base := filepath.Base(f); base != "kustomization.yaml" && !slices.Contains(k.Resources, base) {
			t.Errorf("%s: not in the kustomization", f)
		}
	}
	return objects
}

// only returns the objects of one kind.
func only(objects []*object, kinds ...string) []*object {
	return slices.DeleteFunc(slices.Clone(objects), func(o *object) bool { return !slices.Contains(kinds, o.Kind) })
}

func TestManifests(t *testing.T) {
	for _, dir := range flavours {
		seen := map[string]string{}
		for _, o := range closure(t, dir) {
			if o.APIVersion == "" || o.Kind == "" || o.Metadata.Name == "" {
				t.Errorf("%s: a document without apiVersion, kind or name", o.file)
			}
			if before := seen[o.id()]; before != "" {
				t.Errorf("%s is in %s and in %s", o.id(), before, o.file)
			}
			seen[o.id()] = o.file
			if o.Metadata.Labels["app.kubernetes.io/name"] != "corax" {
				t.Errorf("%s: %s has not our label", o.file, o.id())
			}
			if o.Kind == "Secret" {
				t.Errorf("%s: a Secret with a known content", o.file)
			}
		}
		if len(seen) < 8 {
			t.Errorf("%s: only %d objects", dir, len(seen))
		}
	}
}

// TestYAML parses every file that is YAML as it stands.
func TestYAML(t *testing.T) {
	n := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "templates":
			return fs.SkipDir
		case filepath.Ext(path) == ".yaml":
			n++
			if len(read(t, path)) == 0 {
				t.Errorf("%s: empty", path)
			}
		}
		return nil
	})
	if err != nil || n < 15 {
		t.Errorf("%d files, %v", n, err)
	}
}

// TestCRDFolder keeps deploy/crd applicable as it is.
func TestCRDFolder(t *testing.T) {
	files, err := os.ReadDir("crd")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		for _, o := range read(t, filepath.Join("crd", f.Name())) {
			if o.Kind != "CustomResourceDefinition" {
				t.Errorf("%s: a %s", o.file, o.Kind)
			}
		}
	}
}
