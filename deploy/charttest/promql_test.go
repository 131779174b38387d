package charttest

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"
)

// expressions returns every query of the alerts and the dashboard, by where it
// stands.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	read := func(file string) []byte {
		b, err := os.ReadFile("../dashboards/" + file)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var alerts struct {
		Groups []struct {
			Rules []struct {
				Alert string `json:"alert"`
				Expr  string `json:"expr"`
			} `json:"rules"`
		} `json:"groups"`
	}
	if err := yaml.Unmarshal(read("alerts.yaml"), &alerts); err != nil {
		t.Fatal(err)
	}
	for _, g := range alerts.Groups {
		for _, r := range g.Rules {
			all[r.Alert] = r.Expr
		}
	}
	var dashboard struct {
		Panels []struct {
			Title   string `json:"title"`
			Targets []struct {
				RefID string `json:"refId"`
				Expr  string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(read("corax.json"), &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			all[p.Title+" "+target.RefID] = strings.NewReplacer("$__rate_interval", "5m", "$gateway", ".*").Replace(target.Expr)
		}
	}
	return all
}

// TestExpressions parses every query. Whether its metrics exist is tested in
// package deploy.
func TestExpressions(t *testing.T) {
	all := expressions(t)
	if len(all) < 25 {
		t.Errorf("only %d", len(all))
	}
	for where, expr := range all {
		if _, err := parser.NewParser(parser.Options{}).ParseExpr(expr); err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}
}
