package portmap

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain fails when a goroutine of the package outlives the tests.
func TestMain(m *testing.M) {
	code := m.Run()
	limit := time.Now().Add(10 * time.Second)
	for left := leaked(); code == 0 && left != ""; left = leaked() {
		if time.Now().After(limit) {
			fmt.Fprintln(os.Stderr, "goroutine left behind:\n"+left)
			code = 1
		}
		runtime.Gosched()
	}
	os.Exit(code)
}

// leaked returns the stack of a goroutine that runs our code, other than this
// one.
func leaked() string {
	buf := make([]byte, 1<<20)
	for _, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(stack, "corax/nat/portmap") && !strings.Contains(stack, "portmap.leaked") {
			return stack
		}
	}
	return ""
}
