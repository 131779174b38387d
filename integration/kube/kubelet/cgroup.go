//go:build linux

package kubelet

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const cgroups = "/sys/fs/cgroup"

// hasCgroups reports what of cgroup v1 is missing.
func hasCgroups() error {
	if _, err := os.Stat(filepath.Join(cgroups, "memory", "tasks")); err != nil {
		return errors.New("kubelet: no cgroup v1 with a memory controller")
	}
	return nil
}

// removeCgroups removes what a machine left there, once its last process is gone.
func removeCgroups(name string) error {
	var errs []error
	tops, err := filepath.Glob(filepath.Join(cgroups, "*", name))
	if err != nil {
		return err
	}
	for _, top := range tops {
		var dirs []string
		errs = append(errs, filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil // what is gone needs no removal
		}))
		for _, dir := range slices.Backward(dirs) {
			errs = append(errs, removeCgroup(dir))
		}
	}
	return errors.Join(errs...)
}

// removeCgroup removes one cgroup, which is busy until the kernel has let go of
// its last process.
func removeCgroup(dir string) error {
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Rmdir(dir)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			if errors.Is(err, unix.ENOENT) {
				return nil
			}
			return err
		}
		<-tick.C
	}
}
