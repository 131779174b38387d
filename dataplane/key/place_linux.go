package key

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// place gives the file old the name new, unless new exists: then the error
// matches fs.ErrExist. A hard link does that everywhere but on file systems
// without links (vfat), where Linux can rename without replacing.
func place(old, new string) error {
	err := os.Link(old, new)
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	if errno := unix.Renameat2(unix.AT_FDCWD, old, unix.AT_FDCWD, new, unix.RENAME_NOREPLACE); errno != nil {
		return &os.LinkError{Op: "rename", Old: old, New: new, Err: errno}
	}
	return nil
}
