package file

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"corax/control"
	"corax/control/api/v1beta1"
)

const (
	// CacheFile is the name, in Config.Cache, of what is in force.
	CacheFile = "gateways.json"
	// maxCache bounds it, in bytes.
	maxCache = 64 << 20
	// staleAfter is the age at which a temporary file has no writer any more.
	staleAfter = time.Minute
)

// cache keeps on disk what is in force of each file, for a start at which a file
// is broken. The zero value keeps nothing.
type cache struct {
	dir   string
	saved [sha256.Size]byte // of what is on disk; zero when that is not known
}

// cached is the document on disk.
type cached struct {
	Dir   string       `json:"dir"` // what it is of
	Files []cachedFile `json:"files"`
}

type cachedFile struct {
	Name    string         `json:"name"`
	Objects []cachedObject `json:"objects"`
}

type cachedObject struct {
	Source   string            `json:"source"`
	Gateway  v1beta1.Gateway   `json:"gateway"`
	Problems []control.Problem `json:"problems,omitempty"`
}

// load returns what was in force of dir when the last agent ended; nothing
// without a cache, or when it is another directory's. What a damaged cache holds is lost, and the error says so.
func (c *cache) load(dir string) (map[string]*version, error) {
	if c.dir == "" {
		return nil, nil
	}
	c.sweep()
	b, err := c.read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var doc cached
	if err == nil {
		err = json.Unmarshal(b, &doc)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", c.path(), err)
	}
	if doc.Dir != dir {
		return nil, nil
	}
	c.saved = sha256.Sum256(b)
	files := map[string]*version{}
	for _, f := range doc.Files {
		if v := f.version(); len(v.objects) > 0 && len(files) < maxFiles {
			files[f.Name] = v
		}
	}
	return files, nil
}

// version returns the objects of a file as something to fall back on: sum is not
// known, so the file is read whatever it holds now.
func (f cachedFile) version() *version {
	v := new(version)
	for _, o := range f.Objects {
		if v1beta1.CheckName(o.Gateway.Metadata.Name) == nil && len(v.objects) < MaxObjects {
			v.objects = append(v.objects, object{gateway: o.Gateway, source: o.Source, problems: o.Problems})
		}
	}
	return v
}

// read opens the file only when it is a regular one: a pipe must not hang the
// start, nor a link lead elsewhere.
func (c *cache) read() ([]byte, error) {
	f, err := os.OpenFile(c.path(), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	case st.Size() > maxCache:
		return nil, fmt.Errorf("larger than %d bytes", maxCache)
	}
	return io.ReadAll(io.LimitReader(f, maxCache))
}

// save writes what is in force, unless that is on disk already: a new file
// beside the old one, then a rename, so that a crash or a full disk leaves the
// old one whole.
func (c *cache) save(dir string, files map[string]*version) error {
	if c.dir == "" {
		return nil
	}
	b, err := encode(dir, files)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	if sum == c.saved {
		return nil
	}
	if err := c.write(b); err != nil {
		return err
	}
	c.saved = sum
	return nil
}

func encode(dir string, files map[string]*version) ([]byte, error) {
	doc := cached{Dir: dir, Files: []cachedFile{}}
	for _, name := range sortedNames(files) {
		f := cachedFile{Name: name}
		for _, o := range files[name].objects {
			f.Objects = append(f.Objects, cachedObject{Source: o.source, Gateway: o.gateway, Problems: o.problems})
		}
		if len(f.Objects) > 0 {
			doc.Files = append(doc.Files, f)
		}
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	if len(b) > maxCache {
		return nil, fmt.Errorf("larger than %d bytes", maxCache)
	}
	return b, nil
}

func (c *cache) write(b []byte) error {
	f, err := os.CreateTemp(c.dir, CacheFile+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), c.path())
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// sweep removes what writers left that were killed. Best effort.
func (c *cache) sweep() {
	entries, _ := os.ReadDir(c.dir) // those that could be read
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), CacheFile+".") || !e.Type().IsRegular() {
			continue
		}
		if st, err := e.Info(); err == nil && time.Since(st.ModTime()) > staleAfter {
			_ = os.Remove(filepath.Join(c.dir, e.Name()))
		}
	}
}

func (c *cache) path() string { return filepath.Join(c.dir, CacheFile) }
