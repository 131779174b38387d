package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var units = []string{"corax-agent.service", "corax-agent-user.service"}

// TestUnits has systemd itself read the units.
func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("needs systemd-analyze")
		}
		t.Skip("needs systemd-analyze")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range units {
		// The program need not be installed here: any will do.
		unit := strings.ReplaceAll(text(t, filepath.Join("systemd", name)), "/usr/local/bin/corax", self)
		at := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(at, []byte(unit), 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"verify", "--man=no", at}
		if strings.Contains(name, "user") {
			args = append(args, "--user")
		}
		c := exec.Command(analyze, args...)
		c.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+t.TempDir())
		if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// TestUnitRights keeps the agent of the unit to the rights of the DaemonSet's.
func TestUnitRights(t *testing.T) {
	unit := text(t, "systemd/corax-agent.service")
	for _, want := range []string{
		"CapabilityBoundingSet=CAP_NET_ADMIN", "NoNewPrivileges=yes", "DevicePolicy=closed", "DeviceAllow=/dev/net/tun rw",
		"ProtectSystem=strict", "SystemCallFilter=@system-service", "StateDirectoryMode=0700", "UMask=0077",
	} {
		if !strings.Contains(unit, "\n"+want+"\n") {
			t.Errorf("lacks %s", want)
		}
	}
	if n := strings.Count(unit, "CAP_"); n != 1 {
		t.Errorf("%d capabilities", n)
	}
}

var setting = regexp.MustCompile(`(?m)^(?:# )?([a-z][A-Za-z]+):( |$)`)

// TestExampleSettings: every setting of the example is one of the program.
func TestExampleSettings(t *testing.T) {
	known := map[string]bool{}
	for _, src := range sources(t, "../cmd/corax") {
		for _, m := range regexp.MustCompile(`\bkey: +"([A-Za-z]+)"`).FindAllStringSubmatch(src, -1) {
			known[m[1]] = true
		}
	}
	found := setting.FindAllStringSubmatch(text(t, "systemd/agent.yaml"), -1)
	for _, m := range found {
		if !known[m[1]] {
			t.Errorf("there is no setting %s", m[1])
		}
	}
	if len(found) < 4 {
		t.Errorf("only %d settings", len(found))
	}
}
