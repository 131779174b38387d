package charttest

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
)

// ChartDir is the chart, seen from this folder.
const ChartDir = "../chart/corax"

// Target is what the chart is rendered for.
type Target struct {
	Values     map[string]any
	Kubernetes string // version; empty means 1.36.0
	Namespace  string // empty means kube-system
}

// Render returns what the chart's templates give, by the name of the template
// without folder. Values are checked against the chart's schema first. Templates
// that give nothing are left out.
func Render(t Target) (map[string]string, error) {
	c, err := loader.Load(ChartDir)
	if err != nil {
		return nil, err
	}
	return renderChart(c, t)
}

func renderChart(c *chart.Chart, t Target) (map[string]string, error) {
	if t.Kubernetes == "" {
		t.Kubernetes = "1.36.0"
	}
	if t.Namespace == "" {
		t.Namespace = "kube-system"
	}
	version, err := chartutil.ParseKubeVersion(t.Kubernetes)
	if err != nil {
		return nil, err
	}
	if c.Metadata.KubeVersion != "" && !chartutil.IsCompatibleRange(c.Metadata.KubeVersion, version.Version) {
		return nil, fmt.Errorf("the chart needs Kubernetes %s", c.Metadata.KubeVersion)
	}
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion = *version
	release := chartutil.ReleaseOptions{Name: "corax", Namespace: t.Namespace, Revision: 1, IsInstall: true}
	values, err := chartutil.ToRenderValues(c, t.Values, release, capabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Engine{Strict: true}.Render(c, values)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for name, text := range files {
		if strings.TrimSpace(text) != "" {
			out[path.Base(name)] = tidy(text)
		}
	}
	return out, nil
}

var blankLines = regexp.MustCompile(`\n[ \t]*(\n[ \t]*)+`)

// tidy removes the empty lines that templates leave.
func tidy(text string) string {
	return strings.TrimSpace(blankLines.ReplaceAllString(text, "\n")) + "\n"
}

// All joins what Render returned to one stream of documents, without the notes.
func All(files map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(name, ".yaml") {
			b.WriteString("---\n" + files[name])
		}
	}
	return b.String()
}
