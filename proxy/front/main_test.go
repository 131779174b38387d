package front

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain fails when something of ours still runs at the end.
func TestMain(m *testing.M) {
	code := m.Run()
	deadline := time.Now().Add(5 * time.Second)
	for left := leaked(); code == 0 && left != ""; left = leaked() {
		if time.Now().After(deadline) {
			fmt.Fprintf(os.Stderr, "left running:\n%s\n", left)
			code = 1
		}
		runtime.Gosched()
	}
	os.Exit(code)
}

// leaked returns the stack of a goroutine that runs our code, other than this one.
func leaked() string {
	buf := make([]byte, 4<<20)
	for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(stack, "corax/proxy") && !strings.Contains(stack, "front.leaked") {
			return stack
		}
	}
	return ""
}
