package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// readRegular reads a regular file of at most limit bytes. Anything else is an
// error before it is read: a pipe must not hang the start, nor a device fill the
// memory.
func readRegular(path string, limit int64) ([]byte, fs.FileMode, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, 0, err
	case !st.Mode().IsRegular():
		return nil, 0, fmt.Errorf("%s is not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, st.Mode().Perm(), err
}

// maxSecret bounds a file with a secret, in bytes.
const maxSecret = 4 << 10

// readSecret reads a file that only its owner, and perhaps a group, may read: a
// secret that everybody has is none. Links are followed, as a mounted Secret is
// made of them.
func readSecret(path string) ([]byte, error) {
	data, mode, err := readRegular(path, maxSecret)
	if err != nil {
		return nil, err
	}
	if mode&0o027 != 0 {
		return nil, fmt.Errorf("%s has mode %04o: others can read it, or a group change it; chmod 600 it, or in a Kubernetes Secret volume set defaultMode: 0400", path, mode)
	}
	return data, nil
}

// staleAfter is the age at which a temporary file has no writer any more.
const staleAfter = time.Minute

// sweep removes what writers that were killed left beside a file of dir: regular
// files called name, a dot, and more. Best effort.
func sweep(dir, name string, now time.Time) {
	entries, _ := os.ReadDir(dir) // those that could be read
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), name+".") || !e.Type().IsRegular() {
			continue
		}
		if st, err := e.Info(); err == nil && now.Sub(st.ModTime()) > staleAfter {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}
