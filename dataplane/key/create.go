package key

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// create writes k to the key file of dir. An existing file stays, and the error
// matches fs.ErrExist.
func create(dir string, k Private) (err error) {
	f, err := os.CreateTemp(dir, "."+FileName+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove(f.Name())) }()
	if err := write(f, k); err != nil {
		return err
	}
	if err := place(f.Name(), filepath.Join(dir, FileName)); err != nil {
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
