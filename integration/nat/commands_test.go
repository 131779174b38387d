//go:build linux

package nat_test

import (
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"corax/integration/lab"
)

// command runs a client command at the agent of a domain and returns what it
// wrote and its exit code.
func (n *network) command(domain string, args ...string) (string, int) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 90*time.Second)
	defer cancel()
	out, err := n.agent(domain).Command(ctx, args...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(out) + err.Error(), exit.ExitCode()
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return string(out), 0
}

// TestPingUntilDirect has nobody but the command send something.
func TestPingUntilDirect(t *testing.T) {
	for _, tt := range []struct {
		name  string
		sites func() []lab.Site
		args  []string
		code  int
	}{
		{"direct", openable, []string{"-c", "60"}, 0},
		{"stays relayed", pairOfSites(random, random), []string{"-c", "5"}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := start(t, lab.InternetOptions{Sites: tt.sites()})
			out, code := n.command("a", append([]string{"ping", "b-gw", "--until-direct"}, tt.args...)...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d:\n%s", code, tt.code, out)
			}
			p := n.peer("a", "b")
			if direct := p.Path.Kind == "direct"; direct != (tt.code == 0) {
				t.Errorf("the path is %s", p.Path.Kind)
			}
			if tt.code != 0 && (p.Path.Why == "" || !strings.Contains(out, p.Path.Why)) {
				t.Errorf("the command does not give the reason %q:\n%s", p.Path.Why, out)
			}
			paths := n.paths("a", "b")
			if !strings.Contains(paths, "relay") || strings.Contains(paths, "direct") != (tt.code == 0) && tt.code == 0 {
				t.Errorf("paths:\n%s", paths)
			}
		})
	}
}

// TestNetcheck asks edges behind different NATs what they think of them.
func TestNetcheck(t *testing.T) {
	n := start(t, lab.InternetOptions{Sites: []lab.Site{
		{Name: "hub-a", Hub: true},
		{Name: "hub-b", Hub: true},
		{Name: "full", NATs: []lab.NAT{cone(lab.FilterNone)}},
		{Name: "address", NATs: []lab.NAT{cone(lab.FilterAddress)}},
		{Name: "restricted", NATs: []lab.NAT{cone(lab.FilterPort)}},
		{Name: "random", NATs: []lab.NAT{random}},
		{Name: "blocked", NATs: []lab.NAT{{Mapping: lab.MapKeepPort, BlockUDP: true, V6: lab.V6Block}}},
	}})
	for _, tt := range []struct{ domain, want, filtering string }{
		{"full", "endpoint independent", "endpoint-independent"},
		{"address", "endpoint independent", "address-dependent"},
		{"restricted", "endpoint independent", "address and port-dependent"},
		{"random", "address and port dependent", "address and port-dependent"},
		{"blocked", "blocked", "unknown"},
	} {
		t.Run(tt.domain, func(t *testing.T) {
			out, code := n.command(tt.domain, "netcheck")
			words := strings.ToLower(strings.ReplaceAll(out, "-", " "))
			if code != 0 || !strings.Contains(words, tt.want) {
				t.Errorf("exit code %d, want %q in:\n%s", code, tt.want, out)
			}
			out, code = n.command(tt.domain, "netcheck", "-o", "json")
			var v struct {
				V4 struct{ Filtering string } `json:"ipv4"`
			}
			if err := json.Unmarshal([]byte(out), &v); err != nil || code != 0 || v.V4.Filtering != tt.filtering {
				t.Errorf("exit code %d, %v, want %s filtering:\n%s", code, err, tt.filtering, out)
			}
		})
	}
}

// TestIdle has edges that have nothing to say to each other: not a packet goes
// between them.
func TestIdle(t *testing.T) {
	n := start(t, lab.InternetOptions{Sites: openable()})
	a, b := n.domain("a"), n.domain("b")
	between := capture(t, a.Router, "wan", func(f lab.Frame) bool { return f.Dst == b.WANAddr() || f.Src == b.WANAddr() })
	relayed := capture(t, a.Router, "wan", isRelayFrame)
	pause(t, 5*time.Second)
	if k := between.Count(); k > 0 {
		t.Errorf("%d packets between idle peers", k)
	}
	if k := relayed.Count(); k > 0 {
		t.Errorf("%d relay frames between idle peers", k)
	}
	if k := n.peer("a", "b").Path.Kind; k != "idle" {
		t.Errorf("the path to a peer without traffic is %s", k)
	}
}
