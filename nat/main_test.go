package nat

import (
	"os"
	"runtime"
	"testing"
)

// TestMain gives the tests one thread to run on. They share a clock that only
// goes on while all of them wait, so nothing is lost; and with two, the race
// detector of Go 1.26 can crash: timers of one synctest bubble that fire on two
// threads at once use the same context of it.
func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(1)
	os.Exit(m.Run())
}
