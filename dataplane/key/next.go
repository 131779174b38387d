package key

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// NextName is the name of the file, in the state directory, of the key that the
// node will use next.
const NextName = "next.key"

// LoadNext reads the next private key of dir. Without one the error matches
// [fs.ErrNotExist]. It refuses what [Load] does.
func LoadNext(dir string) (Private, error) {
	if err := checkDir(dir); err != nil {
		return Private{}, fmt.Errorf("key: state directory: %w", err)
	}
	k, err := readFile(filepath.Join(dir, NextName))
	if err != nil {
		return Private{}, fmt.Errorf("key: read the next private key: %w", err)
	}
	return k, nil
}

// CreateNext is [LoadNext], but makes the key when there is none. Of several
// callers at once all get the same key.
func CreateNext(dir string) (k Private, created bool, err error) {
	k, err = LoadNext(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, false, err
	}
	if k, err = NewPrivate(); err != nil {
		return Private{}, false, err
	}
	switch err := create(dir, NextName, k); {
	case errors.Is(err, fs.ErrExist):
		k, err = LoadNext(dir)
		return k, false, err
	case err != nil:
		return Private{}, false, fmt.Errorf("key: write the next private key: %w", err)
	}
	return k, true, nil
}

// Promote makes the next key the private key, in one step: a crash leaves the one
// or the other. The old key is gone then. Without a next key the error matches
// [fs.ErrNotExist].
func Promote(dir string) error {
	if _, err := LoadNext(dir); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, NextName), filepath.Join(dir, FileName)); err != nil {
		return fmt.Errorf("key: use the next private key: %w", err)
	}
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("key: %w", err)
	}
	return nil
}
