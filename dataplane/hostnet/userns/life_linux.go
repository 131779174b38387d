package userns

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"
)

// lifeTick is how often the namespace is looked for. Nothing tells of its end, and the
// helper and the TUN alone keep it in being.
const lifeTick = time.Second

// WaitEmpty blocks until nobody but the helper is in the network namespace, and returns
// true; or until ctx is done. While the file that was named stands for the namespace
// somebody may enter it. It asks once a second.
func (h *Host) WaitEmpty(ctx context.Context) bool {
	tick := time.NewTicker(lifeTick)
	defer tick.Stop()
	for path := h.target.path; ; {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		if h.target.isAt(path) {
			continue
		}
		// Who was named has ended. Others may go on.
		if path = h.target.member(h.helper.Pid); path == "" {
			return true
		}
	}
}

// isAt reports whether a file stands for the network namespace.
func (t *target) isAt(path string) bool {
	f, err := openFile(path)
	if err != nil {
		return false
	}
	defer f.Close()
	id, err := identify(f)
	return err == nil && id == t.id
}

// member returns the path of the network namespace of a process in it; empty when there
// is none but the helper. Processes that may not be looked at are in another.
func (t *target) member(helper int) string {
	dir, err := os.Open("/proc")
	if err != nil {
		return ""
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == helper {
			continue
		}
		if path := fmt.Sprintf("/proc/%d/ns/net", pid); t.isAt(path) {
			return path
		}
	}
	return ""
}
