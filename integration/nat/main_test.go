//go:build linux

package nat_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"corax/integration/lab"
)

var update = flag.Bool("update", false, "write the grid into docs/nat.md")

// pairsAtOnce is how many pairs of the grid run at the same time, when -parallel
// does not say: they mostly wait.
const pairsAtOnce = "3"

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", pairsAtOnce); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(lab.Main(m))
}
