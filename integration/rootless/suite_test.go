//go:build linux

package rootless_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"corax/integration/lab"
)

var (
	update     = flag.Bool("update", false, "write the table into docs/rootless.md")
	suiteCases = flag.String("suite", "", "run the cases of the table that match this `regexp` only")
	suiteWays  = flag.String("ways", "TUN,userns TUN,netstack", "the columns of the table to run")
)

const (
	suiteDoc = "../../docs/rootless.md"
	// What is between these lines of suiteDoc is written by -update.
	suiteBegin = "<!-- cases: CORAX_SOAK=1 go test -v -timeout 3h ./integration/rootless -run SoakCases -update -->"
	suiteEnd   = "<!-- end of cases -->"
	// caseLimit is for one test in one way.
	caseLimit = 20 * time.Minute
)

// ways are how edge gateway nodes get their packets: the columns of the table.
var ways = []string{"TUN", "userns TUN", "netstack"}

// suites are the packages whose tests are run again.
var suites = []string{"tunnel", "nat", "proxy"}

// table is a cell for each test of the suites and each way.
type table map[string]map[string]string

// TestSoakCases runs every test of the suites that came before this one: as it is,
// in a user namespace as an ordinary user, and with rootless edge gateway nodes.
func TestSoakCases(t *testing.T) {
	if os.Getenv("CORAX_SOAK") == "" {
		t.Skip("set CORAX_SOAK to run it")
	}
	l := lab.ForTest(t) // or skip
	only, err := regexp.Compile(*suiteCases)
	if err != nil {
		t.Fatal(err)
	}
	dir := buildSuites(t, l)
	cells := make(table)
	var todo []suiteCase
	for _, suite := range suites {
		for _, name := range testsOf(t, dir, suite) {
			c := suiteCase{dir: dir, suite: suite, name: name}
			cells[c.row()] = make(map[string]string)
			for _, c.way = range ways {
				if only.MatchString(c.row()) && slices.Contains(strings.Split(*suiteWays, ","), c.way) {
					todo = append(todo, c)
				}
			}
		}
	}
	begin := time.Now()
	for i, c := range todo {
		start := time.Now()
		cells[c.row()][c.way] = c.run(t)
		t.Logf("%d of %d, %v: %s, %s: %s (%v)", i+1, len(todo), time.Since(begin).Round(time.Second),
			c.row(), c.way, cells[c.row()][c.way], time.Since(start).Round(time.Second))
		if *update { // each time: whoever ends this early has what was run
			if err := cells.write(suiteDoc); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// suiteCase is a cell of the table: one test, run in one way.
type suiteCase struct{ dir, suite, name, way string }

func (c suiteCase) row() string { return c.suite + " " + c.name }

// buildSuites builds the test programs, and puts corax beside them, for everybody
// to read.
func buildSuites(t *testing.T, l *lab.Lab) string {
	t.Helper()
	// Not in t.TempDir, whose parent is closed to others.
	if err := os.Chmod(l.Dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(l.Dir(), "suites")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	corax, err := lab.Corax()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(corax)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "corax"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, suite := range suites {
		out, err := exec.Command("go", "test", "-c", "-o", filepath.Join(dir, suite), "corax/integration/"+suite).CombinedOutput()
		if err != nil {
			t.Fatalf("build the tests of %s: %v: %s", suite, err, out)
		}
	}
	return dir
}

// testsOf lists the tests of a suite, without the long ones, and without those that are
// short forms of what netstack's column has.
func testsOf(t *testing.T, dir, suite string) []string {
	t.Helper()
	out, err := exec.Command(filepath.Join(dir, suite), "-test.list", "^Test").Output()
	if err != nil {
		t.Fatalf("tests of %s: %v", suite, err)
	}
	return slices.DeleteFunc(strings.Fields(string(out)), func(name string) bool {
		return strings.HasPrefix(name, "TestSoak") || strings.HasPrefix(name, "TestRootless")
	})
}

// leftOut finds what a test says that it left out: see [lab.LeftOut].
var leftOut = regexp.MustCompile(`(?m)left out: (.*)$`)

// run runs the test, and says what became of it: "pass", with what was left out, or why
// that is not possible. Everything else fails t.
func (c suiteCase) run(t *testing.T) string {
	t.Helper()
	if why := impossible[c.way][c.row()]; why != "" {
		return why
	}
	ctx, cancel := context.WithTimeout(t.Context(), caseLimit)
	defer cancel()
	program := filepath.Join(c.dir, c.suite)
	args := []string{"-test.run", "^" + c.name + "$", "-test.v", "-test.timeout", caseLimit.String()}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.WaitDelay = 10 * time.Second // for what it has left
	cmd.Env = append(os.Environ(), "CORAX_BIN="+filepath.Join(c.dir, "corax"))
	cmd.Dir = filepath.Join("..", c.suite)
	switch c.way {
	case "netstack":
		cmd.Env = append(cmd.Env, lab.DatapathEnv+"=netstack")
	case "userns TUN":
		if err := asOrdinaryUser(c.dir, cmd); err != nil {
			return "not here: " + err.Error()
		}
	}
	out, err := cmd.CombinedOutput()
	text := string(out)
	switch {
	case err != nil:
		t.Errorf("%s, %s: %v\n%s\n%s", c.row(), c.way, err, said(text), text[max(0, len(text)-3000):])
		return "FAILED"
	case strings.Contains(text, "--- SKIP: "+c.name+" ("):
		t.Errorf("%s, %s was skipped:\n%s", c.row(), c.way, text)
		return "skipped"
	case c.way == "netstack" && !strings.Contains(text, "has no TUN and no privilege"):
		return "has no edge gateway node"
	}
	var without []string
	for _, m := range leftOut.FindAllStringSubmatch(text, -1) {
		if !slices.Contains(without, m[1]) {
			without = append(without, m[1])
		}
	}
	if len(without) > 0 {
		return "pass, without " + strings.Join(without, ", and without ")
	}
	return "pass"
}

// testLine is a line that says which test the next ones are of, or how one ended.
var testLine = regexp.MustCompile(`^\s*(?:=== (?:RUN|CONT|NAME)\s+|--- FAIL: )(\S+)`)

// said is what the tests that failed said: the logs of their agents are long.
func said(text string) string {
	by, name := make(map[string]string), ""
	var failed []string
	for line := range strings.Lines(text) {
		if m := testLine.FindStringSubmatch(line); m != nil {
			name = m[1]
			if strings.Contains(line, "--- FAIL") {
				failed = append(failed, name)
			}
		} else if strings.Contains(line, "_test.go:") || strings.Contains(line, "panic") {
			by[name] += line
		}
	}
	var b strings.Builder
	for _, name := range failed {
		said := by[name]
		b.WriteString(name + ":\n" + said[:min(len(said), 2000)])
	}
	return b.String()
}

// asOrdinaryUser makes a program run as user 65534, whom a mount namespace of its own
// gives a /dev/net/tun to open. The lab then puts itself into a user namespace.
func asOrdinaryUser(dir string, cmd *exec.Cmd) error {
	if lab.DeprivedUser() != lab.Nobody {
		return fmt.Errorf("this is a user namespace already")
	}
	home := filepath.Join(dir, "home")
	err := os.Mkdir(home, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.Chown(home, lab.Nobody, lab.Nobody); err != nil {
		return err
	}
	script := `mount -t tmpfs tmpfs /dev/net && mknod /dev/net/tun c 10 200 && chmod 666 /dev/net/tun && ` +
		`exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all "$@"`
	cmd.Args = append([]string{"sh", "-c", script, "sh", cmd.Path}, cmd.Args[1:]...)
	if cmd.Path, err = exec.LookPath("sh"); err != nil {
		return err
	}
	cmd.Env = append(cmd.Env, "TMPDIR="+home, "HOME="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	return nil
}

// write puts the table into a document. Cells that were not run stay as they are
// there.
func (c table) write(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(b), suiteBegin+"\n")
	old, after, ok2 := strings.Cut(rest, suiteEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for the table", path)
	}
	c.keep(old)
	return os.WriteFile(path, []byte(before+suiteBegin+"\n"+c.String()+suiteEnd+after), 0o644)
}

// keep fills the cells that are empty from an earlier table.
func (c table) keep(old string) {
	for line := range strings.Lines(old) {
		f := strings.Split(strings.TrimSpace(line), "|")
		if len(f) != len(ways)+3 {
			continue
		}
		row := c[strings.TrimSpace(f[1])]
		for i, way := range ways {
			if cell := strings.TrimSpace(f[2+i]); row != nil && row[way] == "" {
				row[way] = cell
			}
		}
	}
}

// String renders the table.
func (c table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| case | %s |\n|---%s|\n", strings.Join(ways, " | "), strings.Repeat("|---", len(ways)))
	rows := make([]string, 0, len(c))
	for row := range c {
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(x, y string) int {
		sx, sy := strings.Fields(x)[0], strings.Fields(y)[0]
		if d := slices.Index(suites, sx) - slices.Index(suites, sy); d != 0 {
			return d
		}
		return strings.Compare(x, y)
	})
	for _, row := range rows {
		fmt.Fprintf(&b, "| %s |", row)
		for _, way := range ways {
			cell := c[row][way]
			if cell == "" {
				cell = "not run"
			}
			fmt.Fprintf(&b, " %s |", cell)
		}
		b.WriteString("\n")
	}
	return b.String()
}
