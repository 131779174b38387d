package deploy

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	ours    = regexp.MustCompile(`\bcorax_[a-z0-9_]+`)
	literal = regexp.MustCompile(`"([a-z][a-z0-9_]+)"`)
	// foreign are metrics of the libraries, and of Prometheus itself.
	foreign = regexp.MustCompile(`\b(up|process_[a-z_]+|leader_election_[a-z_]+|controller_runtime_[a-z_]+|workqueue_[a-z_]+)\b`)
	// words are those of the query language, labels and their values.
	quoted = regexp.MustCompile(`"[^"]*"|\{[^}]*\}|\bby \([^)]*\)|\[[^\]]*\]`)
	word   = regexp.MustCompile(`[a-z_][a-z0-9_]*`)
)

// functions are the words of the query language that the expressions use.
var functions = strings.Fields("rate increase sum max min avg count absent changes quantile topk vector by or and unless on group_left bool")

// metricNames returns the names of all metrics of agent and controller, without
// prefix: every literal of the source that could be one. A name that is put
// together at run time is not found, so nothing here may use one.
func metricNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, dir := range []string{"../cmd/corax", "../control", "../dataplane", "../nat", "../proxy"} {
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			for _, m := range literal.FindAllStringSubmatch(text(t, path), -1) {
				names[strings.TrimPrefix(m[1], "corax_")] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return names
}

// checkExpression fails when an expression uses a metric that nobody exports.
func checkExpression(t *testing.T, where, expr string, known map[string]bool) {
	t.Helper()
	found := ours.FindAllString(expr, -1)
	for _, name := range found {
		name := strings.TrimPrefix(name, "corax_")
		// A summary has two series.
		if !known[name] && !known[strings.TrimSuffix(name, "_sum")] && !known[strings.TrimSuffix(name, "_count")] {
			t.Errorf("%s: there is no metric %s", where, name)
		}
	}
	if len(found) == 0 && !foreign.MatchString(expr) && !strings.Contains(expr, "__name__") {
		t.Errorf("%s: no metric in %q", where, expr)
	}
	for _, w := range word.FindAllString(quoted.ReplaceAllString(expr, " "), -1) {
		if !ours.MatchString(w) && !foreign.MatchString(w) && !contains(functions, w) {
			t.Errorf("%s: %q is neither a metric nor a function", where, w)
		}
	}
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

func TestAlerts(t *testing.T) {
	known := metricNames(t)
	var rules struct {
		Groups []struct {
			Name  string `yaml:"name"`
			Rules []struct {
				Alert       string            `yaml:"alert"`
				Expr        string            `yaml:"expr"`
				For         string            `yaml:"for"`
				Labels      map[string]string `yaml:"labels"`
				Annotations map[string]string `yaml:"annotations"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	read(t, "dashboards/alerts.yaml")[0].into(t, &rules)
	seen := map[string]bool{}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if !strings.HasPrefix(r.Alert, "Corax") || seen[r.Alert] {
				t.Errorf("%q: not a name of ours, or given twice", r.Alert)
			}
			seen[r.Alert] = true
			if s := r.Labels["severity"]; s != "info" && s != "warning" && s != "critical" {
				t.Errorf("%s: severity %q", r.Alert, s)
			}
			checkExpression(t, r.Alert, r.Expr, known)
			checkRunbook(t, r.Alert, r.Annotations)
		}
	}
	if len(seen) < 8 {
		t.Errorf("only %d alerts", len(seen))
	}
}

// checkRunbook follows "docs/FILE.md, HEADING".
func checkRunbook(t *testing.T, alert string, annotations map[string]string) {
	t.Helper()
	if annotations["summary"] == "" {
		t.Errorf("%s: no summary", alert)
	}
	file, heading, _ := strings.Cut(annotations["runbook"], ", ")
	if !strings.HasPrefix(file, "docs/") || heading == "" {
		t.Errorf("%s: runbook %q", alert, annotations["runbook"])
	} else if !strings.Contains(text(t, "../"+file), "\n## "+heading+"\n") {
		t.Errorf("%s: %s has no heading %q", alert, file, heading)
	}
}

func TestDashboard(t *testing.T) {
	known := metricNames(t)
	var d struct {
		UID        string `json:"uid"`
		Templating struct {
			List []struct {
				Name       string `json:"name"`
				Definition string `json:"definition"`
			} `json:"list"`
		} `json:"templating"`
		Panels []struct {
			ID      int    `json:"id"`
			Type    string `json:"type"`
			Title   string `json:"title"`
			GridPos struct {
				X, Y, W, H int
			} `json:"gridPos"`
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal([]byte(text(t, "dashboards/corax.json")), &d); err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%s: its number is taken, or it stands out", p.Title)
		}
		ids[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s: shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			checkExpression(t, p.Title, target.Expr, known)
		}
	}
	for _, v := range d.Templating.List {
		for _, name := range ours.FindAllString(v.Definition, -1) {
			if !known[strings.TrimPrefix(name, "corax_")] {
				t.Errorf("variable %s: there is no metric %s", v.Name, name)
			}
		}
	}
	if d.UID != "corax" || len(ids) < 10 {
		t.Errorf("uid %q, %d panels", d.UID, len(ids))
	}
}
