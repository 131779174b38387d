//go:build linux

package nat_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"corax/integration/lab"
)

const (
	docFile = "../../docs/nat.md"
	// What is between these lines of docFile is written by -update.
	docBegin = "<!-- grid: go test ./integration/nat -run Grid -update -->"
	docEnd   = "<!-- end of grid -->"

	notRun = "not run"
	failed = "failed"
)

// table renders the grid, and the results with the given names below it.
func (g *grid) table(names []string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var b strings.Builder
	b.WriteString("| |")
	for _, k := range g.kinds {
		b.WriteString(" " + k.Name + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(g.kinds)) + "\n")
	for i, a := range g.kinds {
		b.WriteString("| **" + a.Name + "** |")
		for j, other := range g.kinds {
			cell := ""
			if j >= i {
				cell = g.cell(a.Name + " - " + other.Name)
			}
			b.WriteString(" " + cell + " |")
		}
		b.WriteString("\n")
	}
	b.WriteString("\n| behind one NAT | |\n|---|---|\n")
	for _, name := range names {
		b.WriteString("| " + name + " | " + g.cell(name) + " |\n")
	}
	return b.String()
}

func (g *grid) cell(name string) string {
	r, ok := g.results[name]
	if !ok {
		return notRun
	}
	return r.String()
}

// write puts the grid into a file between its two marks; a missing file is made.
func (g *grid) write(path string, names []string) error {
	table := g.table(names)
	if strings.Contains(table, notRun) || strings.Contains(table, failed) {
		return errors.New("the grid is not whole")
	}
	old, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		old = []byte("# NAT traversal\n\n" + docBegin + "\n" + docEnd + "\n")
	} else if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(old), docBegin+"\n")
	_, tail, ok2 := strings.Cut(rest, docEnd)
	if !ok || !ok2 {
		return errors.New(path + " has no marks for the grid")
	}
	return os.WriteFile(path, []byte(head+docBegin+"\n"+table+docEnd+tail), 0o644)
}

func TestTable(t *testing.T) {
	g := &grid{kinds: []lab.Kind{{Name: "one"}, {Name: "two"}}, results: map[string]pairResult{
		"one - one": {kind: "direct", firstByte: 50 * time.Millisecond, direct: 1200 * time.Millisecond},
		"one - two": {kind: "relay-tls", firstByte: 100 * time.Millisecond},
		"same":      {kind: "relay", firstByte: time.Second},
	}}
	want := `| | one | two |
|---|---|---|
| **one** | direct 0.05 / 1.2 | relay-tls 0.10 |
| **two** |  | not run |

| behind one NAT | |
|---|---|
| same | relay 1.00 |
`
	if got := g.table([]string{"same"}); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	path := t.TempDir() + "/nat.md"
	if g.write(path, []string{"same"}) == nil {
		t.Error("a grid that is not whole was written")
	}
	g.set("two - two", pairResult{kind: "relay", firstByte: time.Second})
	want = strings.Replace(want, notRun, "relay 1.00", 1)
	for range 2 {
		if err := g.write(path, []string{"same"}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if text := "# NAT traversal\n\n" + docBegin + "\n" + want + docEnd + "\n"; err != nil || string(b) != text {
		t.Errorf("%v, wrote\n%s", err, b)
	}
}
