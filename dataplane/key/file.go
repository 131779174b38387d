package key

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// FileName is the name of the key file in the state directory.
const FileName = "private.key"

// maxFile bounds what is read of a key file, in bytes: the base64 form has 44.
const maxFile = 256

// Load reads the private key of the state directory dir. When there is none the
// error matches [fs.ErrNotExist]. A directory or a key file that group or others
// can access is refused, and so is a key file that is no regular file: somebody
// else may have read the key, or chosen it.
func Load(dir string) (Private, error) {
	if err := checkDir(dir); err != nil {
		return Private{}, fmt.Errorf("key: state directory: %w", err)
	}
	k, err := readFile(filepath.Join(dir, FileName))
	if err != nil {
		return Private{}, fmt.Errorf("key: read private key: %w", err)
	}
	return k, nil
}

// LoadOrCreate is [Load], but makes what is missing: the directory with mode
// 0700 and a new key with mode 0600. created says that the key is new. Of several
// callers at once one creates and all get the same key; a crash or a full disk
// leaves no key file or a whole one, and what it leaves beside that is removed at
// a later start.
func LoadOrCreate(dir string) (k Private, created bool, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Private{}, false, fmt.Errorf("key: make state directory: %w", err)
	}
	k, err = Load(dir)
	if err == nil {
		sweep(dir)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return k, false, err
	}
	k, err = NewPrivate()
	if err != nil {
		return Private{}, false, err
	}
	switch err := create(dir, FileName, k); {
	case errors.Is(err, fs.ErrExist): // somebody was faster
		k, err = Load(dir)
		return k, false, err
	case err != nil:
		return Private{}, false, fmt.Errorf("key: write private key: %w", err)
	}
	return k, true, nil
}

// checkDir follows a symbolic link: where the state lives is the operator's
// choice, who can read it is not.
func checkDir(dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return &ModeError{Path: dir, Mode: st.Mode(), Want: 0o700}
	}
	return nil
}

func readFile(path string) (Private, error) {
	// O_NOFOLLOW: a link could point at a file that others write. O_NONBLOCK: a
	// FIFO must not hang the start.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return Private{}, fmt.Errorf("%s is a symbolic link", path)
	}
	if err != nil {
		return Private{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Private{}, err
	}
	if !st.Mode().IsRegular() {
		return Private{}, fmt.Errorf("%s is not a regular file", path)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return Private{}, &ModeError{Path: path, Mode: st.Mode(), Want: 0o600}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return Private{}, err
	}
	return parseFile(path, string(text))
}

func parseFile(path, text string) (Private, error) {
	b, err := parse(strings.TrimSpace(text))
	switch {
	case err != nil:
		return Private{}, fmt.Errorf("%s: %w", path, err)
	case b == [Size]byte{}:
		return Private{}, fmt.Errorf("%s: all bytes are zero", path)
	}
	k := Private{b}
	k.clamp()
	return k, nil
}

// ModeError says that a file or directory is open to more than its owner.
type ModeError struct {
	Path string
	Mode fs.FileMode // what it is
	Want fs.FileMode // the most that is accepted
}

// Error says what is wrong; [ModeError.Hint] says what mends it.
func (e *ModeError) Error() string {
	return fmt.Sprintf("%s has mode %04o: group or others can access it", e.Path, e.Mode.Perm())
}

// Hint returns what mends it: a command, or words for a directory that is made to
// be shared, such as /tmp.
func (e *ModeError) Hint() string {
	if e.Mode&fs.ModeSticky != 0 {
		return "a directory of its own"
	}
	return fmt.Sprintf("chmod %o %s", e.Want, e.Path)
}
