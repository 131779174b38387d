// Package statefile reads and writes one small file of an agent's state directory:
// bounded, for the agent alone, and never half written.
package statefile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// staleAfter is the age at which a temporary file has no writer any more.
const staleAfter = time.Minute

// File is one file. It has no state: it may be copied, and used by one goroutine
// at a time.
type File struct {
	Dir, Name string
	Max       int // in bytes
}

// Path returns where the file is.
func (f File) Path() string { return filepath.Join(f.Dir, f.Name) }

// Read returns what the file holds. The error of one that is not there is
// fs.ErrNotExist. It opens only a regular file: a pipe must not hang the start,
// nor a link lead elsewhere.
func (f File) Read() ([]byte, error) {
	file, err := os.OpenFile(f.Path(), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	st, err := file.Stat()
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	case st.Size() > int64(f.Max):
		return nil, f.tooLarge()
	}
	return io.ReadAll(io.LimitReader(file, int64(f.Max)))
}

// Write replaces what the file holds: a new file beside the old one, with mode
// 0600, then a rename, so that a crash or a full disk leaves the old one whole.
func (f File) Write(b []byte) error {
	if len(b) > f.Max {
		return f.tooLarge()
	}
	file, err := os.CreateTemp(f.Dir, f.Name+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = file.Write(b)
	if err == nil {
		err = file.Sync()
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Rename(file.Name(), f.Path())
	}
	if err != nil {
		_ = os.Remove(file.Name())
	}
	return err
}

// Sweep removes what writers left that were killed. Best effort.
func (f File) Sweep() {
	entries, _ := os.ReadDir(f.Dir) // those that could be read
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), f.Name+".") || !e.Type().IsRegular() {
			continue
		}
		if st, err := e.Info(); err == nil && time.Since(st.ModTime()) > staleAfter {
			_ = os.Remove(filepath.Join(f.Dir, e.Name()))
		}
	}
}

func (f File) tooLarge() error { return fmt.Errorf("larger than %d bytes", f.Max) }
