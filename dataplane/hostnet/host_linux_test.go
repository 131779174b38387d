package hostnet

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestApplyAndCloseTouchOnlyOurs(t *testing.T) {
	newHostNS(t)
	addBridge(t)
	before := hostDump(t)
	addTUN(t, "corax0")
	h := newHost(t, Config{})
	apply(t, h, testState())
	during := hostDump(t)
	t.Log(during)
	for line := range strings.Lines(before) {
		if !strings.Contains(during, line) {
			t.Errorf("gone after Apply: %s", line)
		}
	}
	must(t, h.Close())
	if d := cmp.Diff(before, hostDump(t)); d != "" {
		t.Errorf("after Close (-before +after):\n%s", d)
	}
}
