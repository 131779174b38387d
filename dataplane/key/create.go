package key

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// tempPrefix begins the names of keys that are being written.
	tempPrefix = "." + FileName + "."
	// staleAfter is the age at which such a file has no writer any more.
	staleAfter = time.Minute
)

// create writes k to the key file of dir that is called name. An existing file
// stays, and the error matches fs.ErrExist.
func create(dir, name string, k Private) (err error) {
	f, err := os.CreateTemp(dir, tempPrefix+"*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove(f.Name())) }()
	if err := write(f, k); err != nil {
		return err
	}
	if err := place(f.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncDir(dir)
}

// write puts the key on the disk: its name is only given to bytes that a power
// cut cannot take away again.
func write(f *os.File, k Private) error {
	b := k.Bytes()
	_, err := f.WriteString(base64.StdEncoding.EncodeToString(b[:]) + "\n")
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// remove takes the temporary name away; after a rename it is gone already.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// sweep removes the keys of writers that were killed: nobody uses them, and they
// are secrets. Best effort. Call it when dir has its key, so that a writer whose
// clock differs loses nothing.
func sweep(dir string) {
	entries, _ := os.ReadDir(dir) // those that could be read
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tempPrefix) || !e.Type().IsRegular() {
			continue
		}
		if st, err := e.Info(); err == nil && time.Since(st.ModTime()) > staleAfter {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync %s: %w", dir, err), d.Close())
	}
	return d.Close()
}
